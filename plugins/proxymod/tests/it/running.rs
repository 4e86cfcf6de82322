//! What the three couplings write.

use crate::example::{CountingClock, Example};

#[test]
fn every_table_is_as_python_calculates_it() {
    let example = Example::new();
    example.run().unwrap();
    let tables = example.outputs().into_iter().filter(|name| name.ends_with(".csv"));
    let found: String = tables.map(|name| format!("== {name}\n{}", example.output(&name))).collect();
    // A separate Python script made this from the same inputs: each value is a root of a root of ….
    assert_eq!(found, include_str!("../data/expected_tables.txt"));
}

/// The real metadata service writes `models` and `inputs`; the original's example has a `/` at the end of both.
#[test]
fn folders_may_come_without_a_trailing_slash() {
    let mut example = Example::new();
    example.with_bare_folders();
    example.run().unwrap();
    assert_eq!(example.outputs().into_iter().filter(|name| name.ends_with(".csv")).count(), 54);
}

#[test]
fn models_wait_as_long_as_their_configurations_say() {
    let (example, clock) = (Example::new(), CountingClock::new());
    example.run_with(&clock).unwrap();
    // 2 + 2 + 5 seconds: once loose, in four years tight, and twice in each of these years two-way.
    let took = clock.elapsed().as_secs();
    assert_eq!(took, 9 + 4 * 9 + 2 * 4 * 9);
}

#[test]
fn configurations_are_written_as_the_event_has_them() {
    let example = Example::new();
    example.run().unwrap();
    assert_eq!(
        example.output("config_1.ini"),
        "[PROJECT]\nruntime = 2\nfailure = 0\n[INPUTS]\nin_dir = inputs/\nin_file_one = in_file_one.csv\n\
         in_file_two = in_file_two.csv\n[OUTPUTS]\nout_dir = outputs/\n"
    );
    assert_eq!(
        example.output("config_3.ini"),
        "[PROJECT]\nruntime = 5\nfailure = 0\n[OUTPUTS]\nout_dir = outputs/\n"
    );
}

#[test]
fn each_run_of_a_model_has_a_log_and_stdout_log_has_all_of_them() {
    let example = Example::new();
    example.run().unwrap();
    let logs: Vec<_> = example.outputs().into_iter().filter(|name| name.ends_with(".log")).collect();
    // 3 loose, 12 tight, 24 two-way, and stdout.log and stderr.log.
    assert_eq!(logs.len(), 3 + 12 + 24 + 2);
    let name = "outputs/loose_coupling_model_1_outputs/loose_coupling_model_1_2018-08-30_15h20m00s.log";
    let log =
        example.output(name).replace(&format!("{}/", example.path("").display()).replace("//", "/"), "");
    assert_eq!(
        log,
        "2018-08-30 15:20:00,250 - proxymod_logger - INFO - Starting loose_coupling_model_1\n\
         2018-08-30 15:20:00,250 - proxymod_logger - INFO - CONFIG: [PARAMETER] in_dir -- [VALUE] download/inputs/\n\
         2018-08-30 15:20:00,250 - proxymod_logger - INFO - CONFIG: [PARAMETER] in_file_one -- [VALUE] download/inputs/in_file_one.csv\n\
         2018-08-30 15:20:00,250 - proxymod_logger - INFO - CONFIG: [PARAMETER] in_file_two -- [VALUE] download/inputs/in_file_two.csv\n\
         2018-08-30 15:20:00,250 - proxymod_logger - INFO - CONFIG: [PARAMETER] model_name -- [VALUE] loose_coupling_model_1\n\
         2018-08-30 15:20:00,250 - proxymod_logger - INFO - CONFIG: [PARAMETER] out_dir -- [VALUE] output/outputs/loose_coupling_model_1_outputs\n\
         2018-08-30 15:20:02,250 - proxymod_logger - INFO - Completed loose_coupling_model_1\n"
    );
    let all = example.output("stdout.log");
    let ran = all.lines().filter(|line| line.contains("Running the built-in")).count();
    let completed = all.lines().filter(|line| line.contains("INFO - Completed")).count();
    assert_eq!((ran, completed), (3, 39));
    assert_eq!(example.output("stderr.log"), "");
}

#[test]
fn runs_in_the_same_second_share_a_log_and_no_line_is_lost() {
    let mut example = Example::new();
    for number in 1..=3 {
        example.set(&format!("config_{number}.PROJECT.runtime"), 0);
    }
    example.run().unwrap();
    let logs: Vec<_> =
        example.outputs().into_iter().filter(|name| name.contains("twoway_model_2_2018")).collect();
    let log = example.output(&logs[0]);
    assert_eq!((logs.len(), log.matches("Completed").count()), (1, 8));
}

#[test]
fn models_run_in_the_order_of_the_event() {
    let example = Example::new();
    example.run().unwrap();
    let all = example.output("stdout.log");
    let ran: Vec<_> =
        all.lines().filter_map(|line| line.split_once("built-in ")).map(|(_, rest)| rest).collect();
    assert_eq!(
        ran,
        [
            "loose_coupling for models/loose_coupling.py",
            "tight_coupling_twoway for models/tight_coupling_twoway.py",
            "tight_coupling for models/tight_coupling.py"
        ]
    );
}

#[test]
fn a_failure_on_purpose_comes_after_the_wait_and_is_logged() {
    let (mut example, clock) = (Example::new(), CountingClock::new());
    example.set("config_2.PROJECT.failure", "1");
    assert_eq!(
        example.run_with(&clock).unwrap_err(),
        "proxymod model for file 'models/loose_coupling.py' is invalid: You raised an error on purpose."
    );
    assert_eq!(clock.elapsed().as_secs(), 4);
    let all = example.output("stdout.log");
    let last: Vec<_> =
        all.lines().rev().take(2).map(|line| line.split_once("logger - ").unwrap().1).collect();
    assert_eq!(last, ["INFO - Completed loose_coupling_model_2", "ERROR - You raised an error on purpose."]);
}

#[test]
fn other_folders_other_names_and_more_configurations_are_accepted() {
    let mut example = Example::new();
    example.set("configs_count", 4);
    example.add("config_4.OUTPUTS.out_dir", "unused");
    example.set("config_1.OUTPUTS.out_dir", "a/b");
    example.set("config_2.OUTPUTS.out_dir", ".");
    // The same value twice counts as one.
    example.add("config_2.OUTPUTS.out_dir", ".");
    example.without_models();
    example.add_model("loose_coupling.py");
    example.run().unwrap();
    let names = example.outputs();
    for wanted in [
        "a/b/loose_coupling_model_1_outputs/output1_loose_coupling_model_1_2010_2100.csv",
        "loose_coupling_model_2_outputs/output2_loose_coupling_model_2_2010_2100.csv",
        "outputs/loose_coupling_model_3_outputs/output2_loose_coupling_model_3_2010_2100.csv",
        "config_4.ini",
    ] {
        assert!(names.iter().any(|name| name == wanted), "{wanted} is not in {names:?}");
    }
}

#[test]
fn tables_are_read_as_python_reads_them() {
    let mut example = Example::new();
    example.without_models();
    example.add_model("loose_coupling.py");
    example.download(
        "inputs/in_file_one.csv",
        b"any,header\r\n2100,1e-5,extra\r\n\r\n2010, 9 \r\n1999,x\r\n2010,16",
    );
    example.download(
        "inputs/in_file_two.csv",
        b"no header is read: 2010,-1\n2010,-0.0\n2011,5\n2015,inf\n2020,1e16\n",
    );
    example.run().unwrap();
    let table = |which| {
        let name = "loose_coupling_model_1";
        example.output(&format!("outputs/{name}_outputs/output{which}_{name}_2010_2100.csv"))
    };
    assert_eq!(table(1), "year,value\n2100,1e-05\n2010,4.0\n");
    assert_eq!(table(2), "year,value\n2010,-0.0\n2015,inf\n2020,1e+16\n");
}
