//! What a program gets, and the errors if it cannot be started.

use waypost_domain::handler::Exit;

use super::Run;

/// Makes an executable file through another process: a file that this process has open for writing cannot be executed.
async fn executable(run: &Run, path: &str, text: &str) {
    let mut make =
        Run::of(&["/bin/sh", "-c", r#"printf '%s' "$1" >"$2" && chmod +x "$2""#, "make", text, path]);
    make.call.folder.clone_from(&run.call.folder);
    assert_eq!(make.ended().await.exit, Exit::Code(0));
}

#[tokio::test]
async fn the_result_has_the_programs_exit_code_or_signal() {
    for (script, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 3", Exit::Code(3)),
        ("exit 255", Exit::Code(255)),
        ("kill -9 $$", Exit::Signal(9)),
        ("kill -TERM $$", Exit::Signal(15)),
    ] {
        assert_eq!(Run::script(script).ended().await.exit, exit, "{script}");
    }
}

#[tokio::test]
async fn a_program_gets_the_event_the_folder_its_arguments_and_nothing_else() {
    let mut run = Run::script(r#"cat; pwd; for a in "$0" "$@"; do echo "<$a>"; done; echo oops >&2"#);
    run.native.command.push("zero".to_owned());
    run.call.arguments = vec!["a b".to_owned(), String::new(), "--time-ms".to_owned(), "ä*".to_owned()];
    let ended = run.ended().await;
    assert_eq!(ended.exit, Exit::Code(0), "{ended:?}");
    let folder = run.call.folder.canonicalize().unwrap();
    let said = format!("{{\"id\": \"7\"}}{}\n<zero>\n<a b>\n<>\n<--time-ms>\n<ä*>\n", folder.display());
    assert_eq!(ended.stdout.tail, said);
    assert_eq!(ended.stderr.tail, "oops\n");
    assert_eq!(std::fs::read_to_string(&run.call.stderr).unwrap(), "oops\n", "kept for the upload");
}

#[tokio::test]
async fn a_program_inherits_no_descriptor_of_the_service() {
    let own = std::fs::read_dir("/proc/self/fdinfo").unwrap().map(|entry| entry.unwrap().path());
    // Descriptors that the tests inherited without close-on-exec are not the service's.
    let is_for_all = |path: &std::path::PathBuf| {
        let info = std::fs::read_to_string(path).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:\t"));
        flags.is_some_and(|flags| u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000 == 0)
    };
    let for_all: Vec<_> = own.filter(is_for_all).map(|path| path.file_name().unwrap().to_owned()).collect();
    for memory_bytes in [None, Some(1 << 30)] {
        let mut run = Run::script("ls /proc/$$/fd");
        run.call.limits.memory_bytes = memory_bytes;
        let said = run.ended().await.stdout.tail;
        let more = said
            .lines()
            .filter(|fd| !["0", "1", "2"].contains(fd) && !for_all.iter().any(|known| known == fd));
        assert_eq!(more.collect::<Vec<_>>(), [""; 0]);
        assert!(said.starts_with("0\n1\n"), "{said}");
    }
}

#[tokio::test]
async fn the_environment_is_exactly_the_given_one_and_has_a_path() {
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut run = Run::of(&["env"]);
    run.native.environment = vec![pair("MINE", "a=b c"), pair("WAYPOST_RUN", "forged")];
    run.call.environment = vec![pair("WAYPOST_RUN", "1")];
    let ended = run.ended().await;
    assert_eq!(
        sorted(&ended.stdout.tail),
        ["MINE=a=b c", "PATH=/usr/local/bin:/usr/bin:/bin", "WAYPOST_RUN=1"]
    );
    run.native.environment = vec![pair("PATH", "/bin")];
    let ended = run.ended().await;
    assert_eq!(sorted(&ended.stdout.tail), ["PATH=/bin", "WAYPOST_RUN=1"]);
}

#[tokio::test]
async fn a_relative_path_starts_at_the_services_folder_and_not_the_runs() {
    let run = Run::script("true");
    executable(&run, "tool", "#!/bin/sh\nexit 5\n").await;
    let own = std::env::current_dir().unwrap();
    let up: String = own.components().skip(1).map(|_| "../").collect();
    let mut relative = Run::of(&[&format!("{up}{}", run.place("tool").strip_prefix("/").unwrap().display())]);
    assert_eq!(relative.ended().await.exit, Exit::Code(5));
    relative.native.command = vec!["./tool".to_owned()];
    relative.call.folder.clone_from(&run.call.folder);
    let Exit::Failed(reason) = relative.ended().await.exit else { panic!("it has run") };
    assert!(
        reason.contains(&*own.join("tool").to_string_lossy()) && reason.contains("does not exist"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named_with_a_remedy() {
    let run = Run::script("true");
    executable(&run, "plain", "exit 0\n").await;
    executable(&run, "strange", "#!/no/such/interpreter -x\n").await;
    std::fs::write(run.place("closed"), "#!/bin/sh\n").unwrap();
    let place = |path: &str| run.place(path).to_str().unwrap().to_owned();
    for (program, said) in [
        ("no-such-program".to_owned(), "PATH"),
        ("/no/such/program".to_owned(), "does not exist"),
        (place("plain"), "#!/bin/sh"),
        (place("strange"), "/no/such/interpreter"),
        (place("closed"), "chmod +x"),
        (place("output"), "is a folder"),
    ] {
        let mut run = Run::of(&[&program]);
        for memory_bytes in [None, Some(1 << 30)] {
            run.call.limits.memory_bytes = memory_bytes;
            let ended = run.ended().await;
            let told = match &ended.exit {
                Exit::Failed(reason) => reason.clone(),
                // The limit is set before the program is executed.
                Exit::Code(126) => ended.stderr.tail.clone(),
                other => panic!("{program}: {other:?}"),
            };
            assert!(told.contains(&program), "{told}");
            assert!(told.contains(said) || ended.exit == Exit::Code(126), "{told}");
        }
    }
    let ended = Run::of(&[]).ended().await;
    assert!(matches!(&ended.exit, Exit::Failed(_)), "{ended:?}");
    let mut run = Run::script("true");
    run.native.waypost = "/no/such/waypost".into();
    let ended = run.ended().await;
    assert!(matches!(&ended.exit, Exit::Failed(reason) if reason.contains("/no/such/waypost")), "{ended:?}");
}

#[tokio::test]
async fn fifty_concurrent_runs_do_not_disturb_each_other() {
    let runs: Vec<_> = (0..50).map(|number| Run::script(&format!("cat; exit {number}"))).collect();
    let ended = futures_util::future::join_all(runs.iter().map(Run::ended)).await;
    for (number, ended) in ended.into_iter().enumerate() {
        assert_eq!(ended.exit, Exit::Code(i32::try_from(number).unwrap()));
        assert_eq!(ended.stdout.tail, r#"{"id": "7"}"#);
    }
}
