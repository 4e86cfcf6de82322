#!/usr/bin/env python3
"""Runs the Python models of an event, as Pacifica's Proxymod dispatcher does.

The working directory is the folder of a Waypost run: `event.json`, `download/` and `output/`. Each model file
`download/models/NAME.py` has a function NAME that is called with the paths of three configuration files. It writes
below `out_dir`, which lies in `output/`. Needs Python 3.8 or later, and what the models import.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import sys
import tempfile
import traceback

CONFIGS_MAX = 64
SECTIONS = {
    "PROJECT": ["runtime", "failure"],
    "INPUTS": ["in_dir", "in_file_one", "in_file_two"],
    "OUTPUTS": ["out_dir"],
}
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Failure(Exception):
    """Ends the run, with a text for the operator."""


class InvalidConfig(Failure):
    """An invalid configuration."""

    def __init__(self, config, reason):
        super().__init__(f"proxymod configuration '{config}' is invalid: {reason}")


class InvalidModel(Failure):
    """A model that cannot be run, or failed."""

    def __init__(self, file, reason):
        escaped = file.replace("'", "\\'")
        super().__init__(f"proxymod model for file '{escaped}' is invalid: {reason}")


def read_event():
    """Returns the key-values and the files of event.json: the first as pairs, the second as rows."""
    try:
        with open("event.json", encoding="utf-8") as file:
            rows = json.load(file)["data"]
        rows = [row for row in rows if isinstance(row, dict)]
    except (OSError, ValueError, KeyError, TypeError) as reason:
        raise Failure(f"failed to read event.json: {reason!r}") from reason
    pairs, files = [], []
    for row in rows:
        if row.get("destinationTable") == "TransactionKeyValue":
            key, value = row.get("key") or "", row.get("value")
            if not isinstance(key, str) or isinstance(value, (bool, list, dict)):
                raise Failure(f"failed to read event.json: key-value {key!r} must be a string or a number")
            pairs.append((key, "" if value is None else str(value)))
        elif row.get("destinationTable") == "Files":
            file = {member: row.get(member) or "" for member in ("name", "subdir", "mimetype")}
            if not all(isinstance(text, str) for text in file.values()):
                raise Failure("failed to read event.json: a file's name, subdir and mimetype must be strings")
            files.append(file)
    return pairs, files


def read_configs(pairs):
    """Returns config_1, config_2, … as {section: {key: value}}."""
    counts = sorted({value for key, value in pairs if key == "proxymod.configs_count"})
    if not counts:
        raise Failure("key-value 'proxymod.configs_count' not found")
    if len(counts) > 1 or not re.fullmatch("[0-9]{1,9}", counts[0]) or not 1 <= int(counts[0]) <= CONFIGS_MAX:
        found = " and ".join(f"'{count}'" for count in counts)
        wanted = f"it must be one number from 1 to {CONFIGS_MAX}"
        raise Failure(f"key-value 'proxymod.configs_count' is {found}: {wanted}")
    count = max(3, int(counts[0]))
    configs = {f"config_{number}": {} for number in range(1, count + 1)}
    for key, value in pairs:
        config, dot, rest = key[len("proxymod.") :].partition(".")
        if not key.startswith("proxymod.") or not dot:
            continue
        if config not in configs:
            known = f"1 to {count} (proxymod.configs_count)"
            raise Failure(f"key-value '{key}' belongs to no configuration of {known}")
        section, dot, name = rest.partition(".")
        if not dot:
            raise InvalidConfig(config, f"key-value '{key}' is not of the form proxymod.config_N.SECTION.key")
        if CONTROL.search(value):
            raise InvalidConfig(config, f"key '{rest}' has a control character")
        if configs[config].setdefault(section, {}).setdefault(name, value) != value:
            raise InvalidConfig(config, f"key '{rest}' has two values")
    for config, sections in configs.items():
        check_config(config, sections)
    return configs


def check_config(config, sections):
    """Fails if a section is unknown or incomplete."""
    if not sections:
        raise Failure(f"proxymod configuration '{config}' not found")
    for section, values in sections.items():
        if section not in SECTIONS:
            known = "there are PROJECT, INPUTS and OUTPUTS"
            raise InvalidConfig(config, f"section '{section}' is unknown: {known}")
        for key in SECTIONS[section]:
            if key not in values:
                raise InvalidConfig(config, f"key '{section}.{key}' is missing")
        for key in values:
            if key not in SECTIONS[section]:
                raise InvalidConfig(config, f"key '{section}.{key}' is unknown")
    out_dir = sections.get("OUTPUTS", {}).get("out_dir", "")
    if leaves(out_dir):
        raise InvalidConfig(config, f"key 'OUTPUTS.out_dir': '{out_dir}' leaves the output folder")


def leaves(path):
    """Returns whether a path leads out of the folder that it is relative to."""
    parts = pathlib.PurePosixPath(path)
    return parts.is_absolute() or ".." in parts.parts


def downloaded(path):
    """Returns the path of a file of the event; raises ValueError if it is not in the download folder."""
    if leaves(path):
        raise ValueError(f"'{path}' leaves the download folder")
    found = os.path.abspath(os.path.join("download", path))
    if not os.path.isfile(found):
        raise ValueError(f"File does not exist: {os.path.join('download', path)}")
    return found


def is_in(file, folder):
    """Returns whether a file is in a folder. Pacifica's services write folders with or without a `/` at the end."""
    return file["subdir"].rstrip("/") == folder.rstrip("/")


def select(files, configs):
    """Returns the files of the models, and the folder of the inputs if there are any."""
    inputs = configs["config_1"].get("INPUTS", {})
    models, in_dir = [], None
    for file in files:
        path = os.path.join(file["subdir"], file["name"])
        if file["mimetype"] == "text/x-python" and is_in(file, "models"):
            models.append(path)
        elif file["mimetype"] == "text/csv" and inputs and is_in(file, inputs["in_dir"]):
            if file["name"] in (inputs["in_file_one"], inputs["in_file_two"]):
                try:
                    in_dir = os.path.dirname(downloaded(path))
                except ValueError as reason:
                    raise Failure(f"proxymod input '{path}' is invalid: {reason}") from reason
    if not models:
        raise Failure("proxymod model not found: the event has no text/x-python file in 'models/'")
    return models, in_dir


def load(model):
    """Returns the function of a model file that has the file's name."""
    name = os.path.splitext(os.path.basename(model))[0]
    try:
        spec = importlib.util.spec_from_file_location(name, downloaded(model))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function = getattr(module, name)
        if not callable(function):
            raise TypeError(f"'{name}' is no function")
        return function
    except (Exception, SystemExit) as reason:
        raise InvalidModel(model, reason) from reason


def ini(sections):
    """Returns a configuration as the text of a file."""
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]\n")
        lines.extend(f"{key} = {value}\n" for key, value in values.items())
    return "".join(lines)


def absolute(sections, in_dir):
    """Returns a configuration with the folders of this run."""
    sections = {section: dict(values) for section, values in sections.items()}
    if in_dir is not None and "INPUTS" in sections:
        sections["INPUTS"]["in_dir"] = in_dir
    if "OUTPUTS" in sections:
        out_dir = os.path.join("output", sections["OUTPUTS"]["out_dir"])
        sections["OUTPUTS"]["out_dir"] = os.path.abspath(out_dir)
    return sections


def write(path, text):
    """Writes a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def run():
    """Runs all models of the event, in the event's order."""
    pairs, files = read_event()
    configs = read_configs(pairs)
    models, in_dir = select(files, configs)
    with contextlib.ExitStack() as stack:
        stdout = stack.enter_context(open("output/stdout.log", "w", encoding="utf-8"))
        stderr = stack.enter_context(open("output/stderr.log", "w", encoding="utf-8"))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for config, sections in configs.items():
            write(f"output/{config}.ini", ini(sections))
            write(f"{folder}/{config}.ini", ini(absolute(sections, in_dir)))
        stack.enter_context(contextlib.redirect_stdout(stdout))
        stack.enter_context(contextlib.redirect_stderr(stderr))
        functions = [(model, load(model)) for model in models]
        for model, function in functions:
            try:
                function(*(f"{folder}/config_{number}.ini" for number in (1, 2, 3)))
            except (Exception, SystemExit) as reason:
                raise InvalidModel(model, reason) from reason


def main():
    """Returns the exit code."""
    # Python must not write bytecode into the run's download.
    sys.dont_write_bytecode = True
    try:
        run()
    except Failure as failure:
        if failure.__cause__ is not None and isinstance(failure, InvalidModel):
            cause = failure.__cause__
            traceback.print_exception(type(cause), cause, cause.__traceback__)
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
