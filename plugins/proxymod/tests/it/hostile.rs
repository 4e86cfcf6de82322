//! Events and files that are wrong: each fails with its own error, before any model waits.

use serde_json::{Value, json};

use crate::example::{CountingClock, Example};

/// Runs a changed example; returns its error, which must come at once.
fn error(change: impl FnOnce(&mut Example)) -> String {
    let (mut example, clock) = (Example::new(), CountingClock::new());
    change(&mut example);
    let error = example.run_with(&clock).unwrap_err();
    assert_eq!(clock.elapsed().as_secs(), 0, "it waited before it said: {error}");
    error
}

#[test]
fn a_missing_configuration_is_not_found() {
    for (gone, named) in [("config_1.", "config_1"), ("config_3.", "config_3"), ("config_", "config_1")] {
        let expected = format!("proxymod configuration '{named}' not found");
        assert_eq!(error(|example| example.remove(gone)), expected);
    }
    // The couplings need three, whatever the event says.
    let two = |example: &mut Example| {
        example.set("configs_count", "2");
        example.remove("config_3.");
    };
    assert_eq!(error(two), "proxymod configuration 'config_3' not found");
    assert_eq!(
        error(|example| example.set("configs_count", "64")),
        "proxymod configuration 'config_4' not found"
    );
}

#[test]
fn the_count_of_configurations_is_a_number_in_its_range() {
    for count in ["0", "three", "", "-3", "2.5", "65", "99999999999999999999999999", " 3"] {
        let expected =
            format!("key-value 'proxymod.configs_count' is '{count}': it must be one number from 1 to 64");
        assert_eq!(error(|example| example.set("configs_count", count)), expected);
    }
    assert_eq!(
        error(|example| example.remove("configs_count")),
        "key-value 'proxymod.configs_count' not found"
    );
    assert_eq!(
        error(|example| example.add("configs_count", "4")),
        "key-value 'proxymod.configs_count' is '3' and '4': it must be one number from 1 to 64"
    );
}

#[test]
fn a_configuration_has_exactly_the_known_keys_in_each_section() {
    for (gone, key, value, reason) in [
        ("config_1.INPUTS.in_dir", "task", "advance", "key 'INPUTS.in_dir' is missing"),
        ("config_1.PROJECT.runtime", "task", "advance", "key 'PROJECT.runtime' is missing"),
        ("none", "config_1.PROJECT.name", "x", "key 'PROJECT.name' is unknown"),
        ("none", "config_1.OUTPUTS.out_dir.x", "x", "key 'OUTPUTS.out_dir.x' is unknown"),
        (
            "none",
            "config_1.OTHER.x",
            "x",
            "section 'OTHER' is unknown: there are PROJECT, INPUTS and OUTPUTS",
        ),
        (
            "none",
            "config_1.project.runtime",
            "2",
            "section 'project' is unknown: there are PROJECT, INPUTS and OUTPUTS",
        ),
        (
            "none",
            "config_1.PROJECT",
            "2",
            "key-value 'proxymod.config_1.PROJECT' is not of the form proxymod.config_N.SECTION.key",
        ),
        ("none", "config_1.PROJECT.runtime", "3", "key 'PROJECT.runtime' has two values"),
        (
            "config_1.INPUTS.in_dir",
            "config_1.INPUTS.in_dir",
            "a\n[OUTPUTS]",
            "key 'INPUTS.in_dir' has a control character",
        ),
        (
            "config_1.OUTPUTS",
            "config_1.OUTPUTS.out_dir",
            "../out",
            "key 'OUTPUTS.out_dir': '../out' leaves the output folder",
        ),
        (
            "config_1.OUTPUTS",
            "config_1.OUTPUTS.out_dir",
            "/etc",
            "key 'OUTPUTS.out_dir': '/etc' leaves the output folder",
        ),
    ] {
        let change = |example: &mut Example| {
            example.remove(gone);
            example.add(key, value);
        };
        assert_eq!(error(change), format!("proxymod configuration 'config_1' is invalid: {reason}"));
    }
}

#[test]
fn runtime_and_failure_are_numbers_in_their_range() {
    for (key, value, max) in [
        ("runtime", "-1", 86_400),
        ("runtime", "2.5", 86_400),
        ("runtime", "86401", 86_400),
        ("runtime", "__import__('os')", 86_400),
        ("failure", "2", 1),
        ("failure", "no", 1),
    ] {
        let expected = format!(
            "proxymod configuration 'config_2' is invalid: \
             key 'PROJECT.{key}': Value '{value}' is not within range 0 to {max}"
        );
        assert_eq!(error(|example| example.set(&format!("config_2.PROJECT.{key}"), value)), expected);
    }
}

#[test]
fn key_values_that_belong_to_no_configuration_are_refused() {
    for key in ["config_4.PROJECT.runtime", "config_01.PROJECT.runtime", "other.PROJECT.runtime", "../x.A.b"]
    {
        let expected = format!(
            "key-value 'proxymod.{key}' belongs to no configuration of 1 to 3 (proxymod.configs_count)"
        );
        assert_eq!(error(|example| example.add(key, "2")), expected);
    }
}

#[test]
fn a_section_that_the_coupling_needs_is_named() {
    for (gone, section) in
        [("config_1.INPUTS", "INPUTS"), ("config_1.PROJECT", "PROJECT"), ("config_1.OUTPUTS", "OUTPUTS")]
    {
        let expected = format!(
            "proxymod model for file 'models/loose_coupling.py' is invalid: Missing [{section}] node in config_1.ini"
        );
        assert_eq!(error(|example| example.remove(gone)), expected);
    }
}

#[test]
fn the_error_of_a_model_that_is_not_built_in_points_to_the_native_variant() {
    let unknown = |example: &mut Example| {
        example.add_model("it's_mine.py");
        example.download("models/it's_mine.py", b"import os");
    };
    assert_eq!(
        error(unknown),
        "proxymod model for file 'models/it\\'s_mine.py' is invalid: 'it's_mine' is no built-in coupling, which are \
         loose_coupling, tight_coupling, tight_coupling_twoway: \
         run other models with the native variant (plugins/proxymod/native/run.py)"
    );
    assert_eq!(
        error(Example::without_models),
        "proxymod model not found: the event has no text/x-python file in 'models/'"
    );
}

#[test]
fn a_file_that_was_not_downloaded_is_named() {
    let model = "proxymod model for file 'models/loose_coupling.py' is invalid";
    let gone =
        |name: &'static str| move |example: &mut Example| std::fs::remove_file(example.path(name)).unwrap();
    for name in ["download/models/loose_coupling.py", "download/inputs/in_file_two.csv"] {
        assert_eq!(error(gone(name)), format!("{model}: File does not exist: {name}"));
    }
    assert_eq!(
        error(|example| example.set("config_1.INPUTS.in_file_two", "other.csv")),
        format!("{model}: File does not exist: the event has no text/csv file 'other.csv' in 'inputs/'")
    );
    assert_eq!(
        error(|example| example.set("config_1.INPUTS.in_dir", "input")),
        format!("{model}: File does not exist: the event has no text/csv file 'in_file_one.csv' in 'input'")
    );
}

#[test]
fn names_that_leave_the_download_are_refused() {
    assert_eq!(
        error(|example| example.add_model("../../loose_coupling.py")),
        "proxymod model for file 'models/../../loose_coupling.py' is invalid: \
         'models/../../loose_coupling.py' leaves the download folder"
    );
    let input = |dir: &'static str| {
        move |example: &mut Example| {
            example.set("config_1.INPUTS.in_dir", dir);
            for name in ["in_file_one.csv", "in_file_two.csv"] {
                let row =
                    json!({"destinationTable": "Files", "name": name, "subdir": dir, "mimetype": "text/csv"});
                example.event["data"].as_array_mut().unwrap().push(row);
            }
        }
    };
    for dir in ["../download/inputs/", "/etc/", "inputs/../../"] {
        let expected = format!(
            "proxymod model for file 'models/loose_coupling.py' is invalid: \
             '{dir}in_file_one.csv' leaves the download folder"
        );
        assert_eq!(error(input(dir)), expected);
    }
}

#[test]
fn wrong_tables_are_named_with_their_line() {
    let long = format!("year,value\n2010,{}1\n", "0".repeat(5000));
    for (table, reason) in [
        ("year,value\n2010,abc\n", "line 2 has the value \"abc\", which is no number"),
        ("year,value\n2010,1_0\n", "line 2 has the value \"1_0\", which is no number"),
        ("year,value\n2010,\n", "line 2 has the value \"\", which is no number"),
        ("year,value\n2010\n", "line 2 has no value after the year"),
        ("year,value\n\nnext,1\n", "line 3 begins with \"next\", which is no year"),
        ("year,value\n2015,1\n", "has no row of the year 2010"),
        ("", "has no row of the year 2010"),
        (&long, "line 2 is longer than 4096 bytes"),
    ] {
        let mut example = Example::new();
        example.set("config_1.PROJECT.runtime", 0);
        example.download("inputs/in_file_two.csv", table.as_bytes());
        assert_eq!(
            example.run().unwrap_err(),
            format!(
                "proxymod model for file 'models/loose_coupling.py' is invalid: \
                 download/inputs/in_file_two.csv {reason}"
            )
        );
    }
    let example = Example::new();
    example.download("inputs/in_file_one.csv", b"year,value\n2010,-4\n");
    assert_eq!(
        example.run().unwrap_err(),
        "proxymod model for file 'models/loose_coupling.py' is invalid: math domain error: \
         download/inputs/in_file_one.csv has -4.0 in the year 2010, which has no square root"
    );
    example.download("inputs/in_file_one.csv", b"year,value\n2010,\xff\n");
    assert!(example.run().unwrap_err().ends_with("in_file_one.csv line 2 is no UTF-8 text"));
}

#[test]
fn an_invalid_event_is_refused() {
    for event in [json!({}), json!([]), json!({"data": {"a": 1}}), json!({"data": "text"})] {
        let error = error(|example| example.event = event.clone());
        assert!(
            error.starts_with("failed to read event.json: it is no event whose `data` are rows: "),
            "{error}"
        );
    }
    let wrong = |row: Value| move |example: &mut Example| example.event = json!({"data": [row]});
    for (row, reason) in [
        (
            json!({"destinationTable": "TransactionKeyValue", "key": 1, "value": "x"}),
            "data[0].key must be a string",
        ),
        (
            json!({"destinationTable": "TransactionKeyValue", "key": "k", "value": [1]}),
            "data[0].value must be a string or a number",
        ),
        (json!({"destinationTable": "Files", "name": {}}), "data[0].name must be a string"),
    ] {
        assert_eq!(error(wrong(row)), format!("failed to read event.json: {reason}"));
    }
}
