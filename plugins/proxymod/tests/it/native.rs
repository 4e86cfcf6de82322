//! The native variant, `native/run.py`, with stand-ins for the models.

use std::path::Path;
use std::process::{Command, Output};

use crate::example::Example;

/// A model that writes its arguments, and the product of the first values of both inputs.
const STAND_IN: &str = r#"
import configparser, os, sys

def stand_in(*paths):
    configs = []
    for path in paths:
        config = configparser.ConfigParser()
        assert config.read(path) == [path] and os.path.isabs(path)
        configs.append(config)
    inputs = configs[0]["INPUTS"]
    product = 1.0
    for name in ("in_file_one", "in_file_two"):
        with open(os.path.join(inputs["in_dir"], inputs[name])) as file:
            product *= float(file.readlines()[1].split(",")[1])
    out_dir = configs[2]["OUTPUTS"]["out_dir"]
    os.makedirs(out_dir)
    with open(os.path.join(out_dir, "product.txt"), "w") as file:
        file.write(f"{product} {len(configs)} {os.path.samefile(os.getcwd(), os.path.join(out_dir, '../..'))}")
    print("said on stdout")
    print("said on stderr", file=sys.stderr)
"#;

/// Runs the script in the example's folder; returns `None` where there is no Python.
fn run(example: &Example) -> Option<Output> {
    example.write_event();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("native/run.py");
    match Command::new("python3").arg(script).current_dir(example.path("")).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("not tested: python3 cannot be started: {error}");
            None
        }
    }
}

/// Returns the last line of the script's error output when it fails.
fn error(example: &Example) -> Option<String> {
    let output = run(example)?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap().lines().last().map(ToOwned::to_owned)
}

fn with_model(code: &str) -> Example {
    let mut example = Example::new();
    example.without_models();
    example.add_model("stand_in.py");
    example.download("models/stand_in.py", code.as_bytes());
    example
}

#[test]
fn a_model_gets_three_configurations_and_its_outputs_are_collected() {
    let example = with_model(STAND_IN);
    let Some(output) = run(&example) else { return };
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(example.output("outputs/product.txt"), "0.25 3 True");
    assert_eq!(example.output("stdout.log"), "said on stdout\n");
    assert_eq!(example.output("stderr.log"), "said on stderr\n");
    let names =
        ["config_1.ini", "config_2.ini", "config_3.ini", "outputs/product.txt", "stderr.log", "stdout.log"];
    assert_eq!(example.outputs(), names);
    assert!(!example.path("download/models/__pycache__").exists());
}

/// The real metadata service writes `models`, the original's example `models/`: with the former, no model was found.
#[test]
fn a_folder_may_come_without_a_trailing_slash() {
    let mut example = with_model(STAND_IN);
    example.with_bare_folders();
    let Some(output) = run(&example) else { return };
    assert!(output.status.success(), "{output:?}");
    assert_eq!(example.output("outputs/product.txt"), "0.25 3 True");
}

#[test]
fn the_configurations_are_those_that_the_component_writes() {
    let example = with_model("def stand_in(*paths): pass");
    if run(&example).is_none() {
        return;
    }
    let component = Example::new();
    component.run().unwrap();
    for name in ["config_1.ini", "config_2.ini", "config_3.ini"] {
        assert_eq!(example.output(name), component.output(name));
    }
}

#[test]
fn models_that_fail_are_named_with_their_reason() {
    for (code, reason) in [
        (
            "def stand_in(*paths): raise RuntimeError('You raised an error on purpose.')",
            "You raised an error on purpose.",
        ),
        ("def other(): pass", "module 'stand_in' has no attribute 'stand_in'"),
        ("stand_in = 1", "'stand_in' is no function"),
        ("raise SystemExit(0)", "0"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ] {
        let Some(error) = error(&with_model(code)) else { return };
        assert_eq!(error, format!("proxymod model for file 'models/stand_in.py' is invalid: {reason}"));
    }
}

#[test]
fn wrong_events_have_the_errors_of_the_component() {
    let changes: [fn(&mut Example); 16] = [
        |example| example.remove("config_2."),
        |example| example.remove("configs_count"),
        |example| example.set("configs_count", "0"),
        |example| example.set("configs_count", "99999999999999"),
        |example| example.add("configs_count", "4"),
        |example| example.remove("config_1.INPUTS.in_dir"),
        |example| example.add("config_1.PROJECT.name", "x"),
        |example| example.add("config_1.OTHER.name", "x"),
        |example| example.add("config_1.PROJECT.runtime", "3"),
        |example| example.add("config_1.PROJECT", "3"),
        |example| example.add("config_4.PROJECT.runtime", "3"),
        |example| example.set("config_1.OUTPUTS.out_dir", "../out"),
        |example| example.set("config_1.OUTPUTS.out_dir", "a\nb"),
        |example| example.add_model("../../tight_coupling.py"),
        |example| example.add_model("missing.py"),
        Example::without_models,
    ];
    for (place, change) in changes.into_iter().enumerate() {
        let mut example = Example::new();
        change(&mut example);
        for name in ["loose_coupling", "tight_coupling", "tight_coupling_twoway"] {
            example.download(&format!("models/{name}.py"), format!("def {name}(*paths): pass").as_bytes());
        }
        let Some(error) = error(&example) else { return };
        assert_eq!(Err(error), example.run(), "change {place}");
    }
}
