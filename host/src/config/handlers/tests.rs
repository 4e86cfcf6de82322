use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;
use figment::providers::Format;

use super::read;
use crate::config::load::Toml;
use waypost_domain::FilterDialect;
use waypost_handlers::{Definition, Destination, IngestAuth, OutputFolder, Program, SCRIPT_FILTER, Source};
use waypost_matching::{Document, Filter};

fn handlers(toml: &str) -> Result<Vec<Definition>, String> {
    read(&Figment::new().merge(Toml::string(toml)), FilterDialect::Auto).map(|(handlers, _)| handlers)
}

/// Reads a handler that has a name, a filter and a program besides these lines.
fn with(lines: &str) -> Result<Definition, String> {
    let toml = format!("[[handler]]\nname = \"h\"\nfilter = \"$\"\ncommand = [\"true\"]\n{lines}\n");
    handlers(&toml).map(|mut handlers| handlers.remove(0))
}

#[test]
fn every_key_is_read() {
    let handler = with(
        r#"
        filter_dialect = "rfc9535"
        dispatch = true
        args = ["-v"]
        env = { LANG = "C" }
        fetch = { cart = "http://cart:8081/", timeout = "2m" }
        upload = { ingest = "https://in/upload", status = "https://in/get_state", username = "u", password_file = "p" }
        outputs = ["output", { folder = "more/inner", key_values = "k.csv" }]
        timeout = "90s"
        max_parallel = 7
        retry_schedule = "1s,2s"
        upload_retry_schedule = "none"
        memory_bytes = 1_000_000
        download_bytes_max = 1
        download_files_max = 2
        output_bytes_max = 3
        output_files_max = 4
        log_bytes_max = 5
        "#,
    )
    .unwrap();
    let Source::Cart { url, timeout } = &handler.source else { panic!("{handler:?}") };
    assert_eq!((url.as_str(), *timeout), ("http://cart:8081/", Duration::from_secs(120)));
    let Destination::Ingest { auth, timeout, .. } = &handler.destination else { panic!("{handler:?}") };
    assert_eq!(*auth, IngestAuth::Basic { username: "u".to_owned(), password_file: PathBuf::from("p") });
    assert_eq!(*timeout, Duration::from_secs(3600));
    let inner = OutputFolder { folder: "more/inner".to_owned(), key_values: "k.csv".to_owned() };
    assert_eq!(handler.outputs, [OutputFolder::new("output"), inner]);
    assert_eq!(handler.retry_schedule.attempts(), 3);
    assert_eq!(handler.upload_retry_schedule.attempts(), 1);
    let limits = handler.limits;
    assert_eq!((limits.timeout, limits.memory_bytes), (Duration::from_secs(90), Some(1_000_000)));
    let sizes = (limits.download_bytes_max, limits.output_bytes_max, limits.log_bytes_max);
    assert_eq!(sizes, (1, 3, 5));
    assert_eq!((limits.download_files_max, limits.output_files_max), (2, 4));
}

#[test]
fn what_is_wrong_is_named_with_its_handler_and_its_key() {
    for (lines, expected) in [
        ("timeout = \"1 fortnight\"", "handler `h`: `timeout`: expected a number and a unit"),
        ("timeout = \"0\"", "`timeout`: expected"),
        ("max_parallel = 0", "handler `h`: `max_parallel`: expected 1 to 256, found 0"),
        ("retry_schedule = \"x\"", "handler `h`: `retry_schedule`: `x` is not a wait"),
        ("component = \"x.wasm\"", "expected either `component`, `command` or `scripts_dir`"),
        ("allow_hosts = [\"https://a.example\"]", "`allow_hosts` goes with `component`"),
        ("env = { WAYPOST_RUN = \"1\" }", "`env`: expected names"),
        ("fetch = { }", "`fetch`: expected either `local` or `cart`"),
        ("fetch = { local = \"/d\", timeout = \"1s\" }", "`timeout` goes with `cart`"),
        ("fetch = { cart = \"ftp://cart\" }", "`fetch.cart`: expected an http or https URL"),
        ("upload = { local = \"/d\", type = \"t\" }", "`upload`: `type` goes with `events`"),
        ("upload = { ingest = \"http://in/\" }", "`ingest` needs `status` too"),
        ("upload = { local = \"/d\", events = \"/e\" }", "expected one of `local`, `ingest` and `events`"),
        ("outputs = [\"../out\"]", "`outputs`: `../out`:"),
        ("outputs = [\"download\"]", "`outputs`: `download`: the run's folder already uses this name"),
        ("outputs = [\"a\", \"a/b\"]", "`outputs`: `a/b`: it overlaps with `a`"),
        ("outputs = [\"a/b\", \"a-b\"]", "`outputs`: `a-b`: its uploads would be named like those of `a/b`"),
        ("output_bytes_max = 0", "`output_bytes_max`: expected a number of bytes above 0"),
        ("output_bytes_max = -1", "handler `h`: `output_bytes_max`:"),
        ("memory_bytes = \"1GiB\"", "`memory_bytes`: expected a whole number without quotes, found string"),
        ("args = \"-v\"", "`args`: expected a list, such as"),
        ("timeout = 600", "`timeout`: expected a string in quotes, such as `\"90s\"`, found"),
        ("filter_file = \"f\"", "expected either `filter` or `filter_file`, found both"),
        ("colour = \"red\"", "handler `h`: unknown key `colour`; the keys are: name, filter"),
        ("time_out = \"1s\"", "unknown key `time_out`; did you mean `timeout`?"),
        ("listen = \"[::]:0\"", "`listen` is a setting of the service: move it above"),
        ("fetch = { web = \"x\" }", "unknown key `web`; the keys are: local, cart, timeout"),
        ("scripts = { a = {} }", "`scripts` goes with `scripts_dir`"),
    ] {
        let found = with(lines).unwrap_err();
        assert!(found.contains(expected), "{lines}: {found}");
    }
}

#[test]
fn a_filter_that_does_not_parse_is_shown_with_the_place() {
    let wrong = "[[handler]]\nname = \"h\"\nfilter = \"$.a[?(\"\ncommand = [\"true\"]\n";
    let found = handlers(wrong).unwrap_err();
    assert!(
        found.starts_with("handler `h`: `filter`: column") && found.contains("$.a[?(") && found.contains('^'),
        "{found}"
    );
    let one = "[handler]\nname = \"h\"\n";
    assert!(handlers(one).unwrap_err().contains("write `[[handler]]`"));
}

#[test]
fn a_handler_has_a_name_of_its_own_and_a_way_to_be_started() {
    let twice = "[[handler]]\nname = \"h\"\ndispatch = true\ncommand = [\"true\"]\n".repeat(2);
    assert!(handlers(&twice).unwrap_err().contains("two handlers have the name `h`"));
    let idle = "[[handler]]\nname = \"h\"\ncommand = [\"true\"]\n";
    assert!(handlers(idle).unwrap_err().contains("handler `h`: nothing starts it"));
    let nameless = "[[handler]]\nfilter = \"$\"\ncommand = [\"true\"]\n";
    assert!(handlers(nameless).unwrap_err().contains("handler number 1: `name` is missing"));
    let odd = "[[handler]]\nname = \"a/b\"\nfilter = \"$\"\ncommand = [\"true\"]\n";
    assert!(handlers(odd).unwrap_err().contains("`a/b` is no name of a handler"));
}

#[test]
fn a_folder_of_scripts_makes_a_handler_each_in_the_order_of_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mode) in [("b.sh", 0o755), ("a.py", 0o700), ("README", 0o644), (".hidden", 0o755)] {
        let path = folder.path().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // The lock of an editor that has `a.py` open: the service did not start while a script was being edited.
    std::os::unix::fs::symlink("me@host.1:2", folder.path().join(".#a.py")).unwrap();
    let scripts = |more: &str| {
        handlers(&format!("[[handler]]\nscripts_dir = {:?}\ntimeout = \"5m\"\n{more}", folder.path()))
    };
    let found = scripts("[handler.scripts.\"b.sh\"]\nfilter = \"$.b\"\nname = \"bee\"\n").unwrap();
    let names: Vec<_> = found.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, ["a.py", "bee"]);
    assert_eq!(found[0].filter.as_ref().unwrap().text, SCRIPT_FILTER);
    assert_eq!(found[1].filter.as_ref().unwrap().text, "$.b");
    assert!(found.iter().all(|handler| handler.limits.timeout == Duration::from_secs(300)));
    let Program::Command { command, .. } = &found[0].program else { panic!("{found:?}") };
    assert_eq!(*command, [folder.path().join("a.py").to_str().unwrap()]);
    // The filter was dropped without a word.
    let both = scripts("[handler.scripts.\"b.sh\"]\nfilter = \"$.b\"\nfilter_file = \"f\"\n").unwrap_err();
    assert!(both.contains("expected either `filter` or `filter_file`, found both"), "{both}");
    let missing = scripts("[handler.scripts.c]\nfilter = \"$\"\n").unwrap_err();
    assert!(missing.contains("there is no executable file `c`"), "{missing}");
    assert!(scripts("name = \"x\"\n").unwrap_err().contains("`name` does not go with `scripts_dir`"));
    std::os::unix::fs::symlink("nowhere", folder.path().join("z.sh")).unwrap();
    assert!(scripts("").unwrap_err().contains("/z.sh: "), "what is wrong is named");
}

/// An editor's backup kept the service from starting: `a.sh~` is not a valid name of a handler.
#[test]
fn copies_that_editors_and_package_managers_leave_are_skipped_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let copies = ["#a.sh#", "A.SH.BAK", "a.sh.dpkg-old", "a.sh.orig", "a.sh.rpmsave", "a.sh.swp", "a.sh~"];
    for name in copies.iter().chain(&["a.sh"]) {
        let path = folder.path().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let toml = format!("[[handler]]\nscripts_dir = {:?}\n", folder.path());
    let (found, mut skipped) = read(&Figment::new().merge(Toml::string(&toml)), FilterDialect::Auto).unwrap();
    assert_eq!(found.iter().map(|handler| handler.name.as_str()).collect::<Vec<_>>(), ["a.sh"]);
    skipped.sort();
    assert_eq!(skipped, copies.map(|name| folder.path().join(name)));
}

/// The default dialect is for all filters that name none, except the default filter of scripts.
#[test]
fn filters_without_a_dialect_use_the_default() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.sh", "b.sh"] {
        fs::write(folder.path().join(name), "").unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let toml = format!(
        "[[handler]]\nname = \"one\"\nfilter = \"$.a\"\ncommand = [\"true\"]\n\
         [[handler]]\nname = \"two\"\nfilter = \"$.a\"\nfilter_dialect = \"jsonpath2\"\ncommand = [\"true\"]\n\
         [[handler]]\nscripts_dir = {:?}\n[handler.scripts.\"b.sh\"]\nfilter = \"$.b\"\n",
        folder.path()
    );
    let (found, _) = read(&Figment::new().merge(Toml::string(&toml)), FilterDialect::Rfc9535).unwrap();
    let dialects: Vec<_> = found
        .iter()
        .map(|handler| (handler.name.as_str(), handler.filter.as_ref().unwrap().dialect))
        .collect();
    let expected = [
        ("one", FilterDialect::Rfc9535),
        ("two", FilterDialect::Jsonpath2),
        ("a.sh", FilterDialect::Jsonpath2),
        ("b.sh", FilterDialect::Rfc9535),
    ];
    assert_eq!(dialects, expected);
}

#[test]
fn the_filter_of_scripts_is_that_of_the_original() {
    let filter = Filter::parse(SCRIPT_FILTER, Default::default()).unwrap();
    let event = |value: &str| {
        format!(
            r#"{{"data": [{{"destinationTable": "TransactionKeyValue", "key": "do_processing", "value": "{value}"}}]}}"#
        )
    };
    assert!(filter.matches(&Document::parse(event("True").as_bytes()).unwrap()).unwrap());
    assert!(!filter.matches(&Document::parse(event("False").as_bytes()).unwrap()).unwrap());
}
