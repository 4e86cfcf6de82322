//! Works through a page from top to bottom, as a reader would.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::plan::{SHELL, Step, Terminal as Place, Text, Typed};
use crate::print;
use crate::shown::{Extent, agrees, first_difference};
use crate::surroundings::Surroundings;
use crate::terminal::{Failed, Outcome, Terminal};

/// How long commands that build or download may take: the first release build on two quiet cores takes some minutes.
const BUILD_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// How long other commands may take; the longest of the pages waits two minutes.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a terminal may take to show something, and for how long commands are repeated.
const SHOW_TIME_MAX: Duration = Duration::from_secs(60);
/// The pause before commands are repeated.
const AGAIN_PAUSE: Duration = Duration::from_millis(200);
/// Programs that build or download.
const BUILDERS: [&str; 5] = ["cargo", "npm", "pip", "rustup", "componentize"];
/// What a server shows when it is ready, unless the page says something else.
const READY: &str = "…listening on …\n";
/// How many lines of each other terminal a failure shows.
const LINES_SHOWN: usize = 20;

/// What is typed for `given serve`: in terminals of their own, and in the reader's.
const GIVEN: [(&str, &str); 2] = [("serve", "waypost serve"), ("listen", "waypost listen")];
const GIVEN_REST: &str = r#"cat > /tmp/event.json <<'EOF'
{"specversion": "1.0", "id": "run-7", "source": "/microscope", "type": "org.example.run.done",
 "data": {"run": 7, "files": [{"name": "a.tif", "size": 1048576}, {"name": "b.log", "size": 300}]}}
EOF
waypost send /tmp/event.json
UUID=$(curl -s localhost:8070/eventmatch -H 'Content-Type: application/json' \
  -d '{"name": "given", "jsonpath": "$", "target_url": "http://127.0.0.1:8071/"}' | grep -o '"uuid":"[^"]*' | cut -d'"' -f4)
test -n "$UUID"
"#;

/// The terminals of a reader.
pub(crate) struct Session<'a> {
    page: &'a str,
    surroundings: &'a Surroundings,
    shell: Terminal,
    /// The shell's working directory.
    folder: PathBuf,
    own: BTreeMap<String, Terminal>,
    /// How many texts differ from what is shown.
    differences: usize,
}

/// A step that did not do what the page says.
#[derive(Debug)]
pub(crate) struct Failure {
    place: String,
    what: String,
    commands: Option<String>,
    /// What the page says, where it says so, and the index of the first line that is not shown.
    expected: Option<(String, String, usize)>,
    got: String,
    others: Vec<(String, String)>,
}

impl<'a> Session<'a> {
    /// Opens the reader's terminal in `folder`.
    pub(crate) fn begin(page: &'a str, folder: &Path, surroundings: &'a Surroundings) -> Result<Self> {
        let shell = Terminal::shell(folder, &|command| surroundings.set_up(command))?;
        Ok(Self {
            page,
            surroundings,
            shell,
            folder: folder.to_owned(),
            own: BTreeMap::new(),
            differences: 0,
        })
    }

    /// Does all steps. It prints and counts texts that differ, and stops at a command that fails.
    pub(crate) fn walk(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            let began = Instant::now();
            if let Err(error) = self.step(step) {
                let failure = error.downcast::<Failure>()?;
                // Without the programs that keep running, nothing below can be as the page says.
                let runs_on =
                    matches!(step, Step::Type(Typed { terminal: Place::Own(_), .. }) | Step::Given { .. });
                if failure.expected.is_none() || runs_on {
                    return Err(failure.into());
                }
                print::line(&failure.to_string());
                self.differences += 1;
                continue;
            }
            if !matches!(step, Step::Skip { .. }) {
                print::line(&format!(
                    "{:>8.1} s  {}",
                    began.elapsed().as_secs_f64(),
                    describe(self.page, step)
                ));
            }
        }
        Ok(())
    }

    /// Returns the reader's working directory.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends the programs that keep running, as their user would.
    pub(crate) fn end(mut self) -> Result<()> {
        while let Some((name, terminal)) = self.own.pop_first() {
            self.interrupt(&name, terminal, 0)?;
        }
        ensure!(self.differences == 0, "FAILED {}: {} texts differ", self.page, self.differences);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Skip { .. } => Ok(()),
            Step::Type(typed) => match &typed.terminal {
                Place::Shell => self.shell(typed),
                Place::Own(name) => self.run_on(name, typed),
            },
            Step::Look { terminal, shows } => self.look(terminal, shows),
            Step::File { name, text } => {
                let written = std::fs::write(self.folder.join(name), self.surroundings.typed(&text.text));
                written.with_context(|| format!("{}:{}: failed to write {name}", self.page, text.line))
            }
            Step::Given { line } => self.give(*line),
        }
    }

    /// Types commands in the reader's terminal, and waits for their end.
    fn shell(&mut self, typed: &Typed) -> Result<()> {
        let commands = &typed.commands;
        if typed.empty_folder {
            let folder = self.surroundings.empty_folder()?;
            self.shell_does(&format!("cd '{}'", folder.display()))?;
        }
        let deadline = Instant::now() + SHOW_TIME_MAX;
        loop {
            let outcome = self.type_in(&commands.text);
            let outcome = outcome.map_err(|error| {
                let got = self.surroundings.read(&self.shell.unread());
                let failure = self.failure(commands.line, &format!("{error:#}"));
                Failure { commands: Some(commands.text.clone()), got, ..failure }
            })?;
            match self.judge(typed, &outcome) {
                None => return Ok(()),
                Some(_) if typed.again && Instant::now() < deadline => std::thread::sleep(AGAIN_PAUSE),
                Some(failure) => return Err(failure.into()),
            }
        }
    }

    /// Types commands of a page, with the ports and folders of this run.
    fn type_in(&mut self, commands: &str) -> Result<Outcome> {
        self.shell_does(&self.surroundings.typed(commands))
    }

    /// Types commands as they are.
    fn shell_does(&mut self, commands: &str) -> Result<Outcome> {
        let script = self.surroundings.script(commands)?;
        let outcome = self.shell.type_file(&script, bound(commands))?;
        self.folder.clone_from(&outcome.folder);
        Ok(outcome)
    }

    /// Returns how the commands differ from what the page says.
    fn judge(&self, typed: &Typed, outcome: &Outcome) -> Option<Failure> {
        let commands = &typed.commands;
        let shown = self.surroundings.read(&outcome.shown);
        let failure = |line, what: &str| {
            let (commands, got) = (Some(commands.text.clone()), shown.clone());
            Failure { commands, got, ..self.failure(line, what) }
        };
        match &outcome.failed {
            Some(Failed { code, line }) if *code != typed.exit => {
                let line = commands.line + line.unwrap_or(0);
                return Some(failure(line, &format!("it failed with exit code {code}, not {}", typed.exit)));
            }
            None if typed.exit != 0 => {
                return Some(failure(
                    commands.line,
                    &format!("it did not fail with exit code {}", typed.exit),
                ));
            }
            Some(_) | None => {}
        }
        let text = typed.shows.as_ref()?;
        if agrees(&text.text, &shown, Extent::Whole) {
            return None;
        }
        let expected = self.expected(text, &shown, Extent::Whole);
        // The other terminals are irrelevant to what these commands show.
        let others = Vec::new();
        Some(Failure { expected, others, ..failure(commands.line, "it does not show what the page says") })
    }

    /// Starts commands in a terminal of their own, and waits until they show what they should.
    fn run_on(&mut self, name: &str, typed: &Typed) -> Result<()> {
        let Typed { commands, shows, .. } = typed;
        let folder = self.folder.clone();
        self.start(name, commands, &folder)?;
        let ready = Text { line: commands.line, text: READY.to_owned() };
        self.await_text(name, shows.as_ref().unwrap_or(&ready), bound(&commands.text))
    }

    /// Types commands in a terminal of their own, after ending what ran there before.
    fn start(&mut self, name: &str, commands: &Text, folder: &Path) -> Result<()> {
        if let Some(terminal) = self.own.remove(name) {
            self.interrupt(name, terminal, commands.line)?;
        }
        let script = self.surroundings.script(&self.surroundings.typed(&commands.text))?;
        // The shell's next block overwrites it.
        let own = script.with_file_name(format!("{name}.sh"));
        std::fs::rename(script, &own).context("failed to write the commands to a file")?;
        let set_up = |command: &mut _| self.surroundings.set_up(command);
        self.own.insert(name.to_owned(), Terminal::running(&own, folder, &set_up)?);
        Ok(())
    }

    /// Waits until another terminal shows a text.
    fn look(&mut self, name: &str, shows: &Text) -> Result<()> {
        if !self.own.contains_key(name) {
            return Err(self.failure(shows.line, &format!("nothing runs in the terminal `{name}`")).into());
        }
        self.await_text(name, shows, SHOW_TIME_MAX)
    }

    fn await_text(&mut self, name: &str, text: &Text, bound: Duration) -> Result<()> {
        let Some(terminal) = self.own.get_mut(name) else { return Ok(()) };
        let surroundings = self.surroundings;
        let mut is_over = false;
        let found = terminal.wait(bound, |shown, over| {
            is_over = over;
            agrees(&text.text, &surroundings.read(shown), Extent::Part).then_some(())
        });
        let shown = surroundings.read(&terminal.unread());
        if found.is_some() {
            terminal.look();
            return Ok(());
        }
        let what = if is_over {
            format!("what runs in the terminal `{name}` has ended")
        } else {
            format!("the terminal `{name}` does not show it within {} s", bound.as_secs())
        };
        let expected = self.expected(text, &shown, Extent::Part);
        Err(Failure { expected, got: shown, ..self.failure(text.line, &what) }.into())
    }

    /// Presses Ctrl-C in a terminal, which has to end well. A program that does not handle the signal is ended by it.
    fn interrupt(&self, name: &str, terminal: Terminal, line: usize) -> Result<()> {
        let by_signal = 128 + rustix::process::Signal::INT.as_raw();
        let is_good = |status: ExitStatus| status.code().is_none_or(|code| code == 0 || code == by_signal);
        match terminal.interrupt() {
            Ok(status) if is_good(status) => Ok(()),
            Ok(status) => Err(self.failure(line, &format!("Ctrl-C in `{name}`: {status}")).into()),
            Err(error) => Err(self.failure(line, &format!("Ctrl-C in `{name}`: {error:#}")).into()),
        }
    }

    /// Sets up what `given serve` promises.
    fn give(&mut self, line: usize) -> Result<()> {
        let folder = self.surroundings.empty_folder()?;
        for (name, commands) in GIVEN {
            let commands = Text { line, text: commands.to_owned() };
            self.start(name, &commands, &folder)?;
            self.await_text(name, &Text { line, text: READY.to_owned() }, SHOW_TIME_MAX)?;
        }
        let outcome = self.type_in(GIVEN_REST)?;
        if outcome.failed.is_some() {
            let what = format!("no event could be sent, or no subscription made: {}", outcome.shown);
            return Err(self.failure(line, &what).into());
        }
        Ok(())
    }

    fn expected(&self, text: &Text, shown: &str, extent: Extent) -> Option<(String, String, usize)> {
        let place = format!("{}:{}", self.page, text.line);
        Some((text.text.clone(), place, first_difference(&text.text, shown, extent)))
    }

    /// Describes a failure, with the last lines of the other terminals.
    fn failure(&self, line: usize, what: &str) -> Failure {
        let end = |terminal: &Terminal| {
            let shown = self.surroundings.read(&terminal.all());
            let lines: Vec<_> = shown.lines().collect();
            lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
        };
        Failure {
            place: format!("{}:{line}", self.page),
            what: what.to_owned(),
            commands: None,
            expected: None,
            got: String::new(),
            others: self.own.iter().map(|(name, terminal)| (name.clone(), end(terminal))).collect(),
        }
    }
}

/// Describes a step in one line.
pub(crate) fn describe(page: &str, step: &Step) -> String {
    let first = |text: &str| text.lines().next().unwrap_or_default().chars().take(90).collect::<String>();
    match step {
        Step::Type(Typed { commands, terminal, shows, .. }) => {
            let terminal = match terminal {
                Place::Shell => SHELL,
                Place::Own(name) => name,
            };
            let compared = if shows.is_some() { " (compared)" } else { "" };
            format!("{page}:{} {terminal}: {}{compared}", commands.line, first(&commands.text))
        }
        Step::Look { terminal, shows } => format!("{page}:{} {terminal} shows it (compared)", shows.line),
        Step::File { name, text } => format!("{page}:{} saved as {name}", text.line),
        Step::Given { line } => format!("{page}:{line} serve and listen run, $UUID is a subscription"),
        Step::Skip { line, language, reason } => format!("{page}:{line} {language}, not run: {reason}"),
    }
}

fn bound(commands: &str) -> Duration {
    let builds = BUILDERS.iter().any(|builder| commands.contains(builder));
    if builds { BUILD_TIME_MAX } else { COMMAND_TIME_MAX }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "FAILED {}: {}", self.place, self.what)?;
        let mut part = |title: &str, text: &str| {
            writeln!(f, "  {title}:")?;
            text.lines().try_for_each(|line| writeln!(f, "    {line}"))
        };
        if let Some(commands) = &self.commands {
            part("commands", commands)?;
        }
        if let Some((text, place, index)) = &self.expected {
            part(&format!("expected ({place})"), text)?;
            let line = text.lines().nth(*index);
            part("first line that is not shown", line.unwrap_or("(none: more is shown behind it)"))?;
        }
        part("got", &self.got)?;
        self.others.iter().try_for_each(|(name, shown)| part(&format!("the terminal `{name}`"), shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown::read;
    use crate::plan::plan;

    /// Runs a page in an empty folder.
    fn walk(page: &str) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let surroundings = Surroundings::new(folder.path(), false, true).unwrap();
        let mut session = Session::begin("page.md", folder.path(), &surroundings).unwrap();
        session.walk(&plan(read(page).unwrap()).unwrap())?;
        session.end()
    }

    #[test]
    fn a_page_that_does_what_it_says_passes() {
        let page = "<!-- readme: in an empty folder -->\n```sh\nls -A\n```\n```text\n```\n\
             <!-- readme: file a.toml -->\n```toml\nb = 1\n```\n<!-- readme: exit 1 -->\n```sh\ncat a.toml; false\n```\n\
             ```text\nb = …\n```\n<!-- readme: sleeper runs on -->\n```sh\nls; sleep 600 & trap 'kill $!; exit 0' INT\necho listening on nothing; wait\n```\n\
             ```text\na.toml\nlistening on nothing\n```\n";
        walk(page).unwrap();
    }

    #[test]
    fn a_command_that_fails_is_reported_with_its_line_and_output() {
        let failure = walk("Words.\n```sh\ntrue\nls absent\n```\n").unwrap_err().to_string();
        assert!(failure.starts_with("FAILED page.md:4: it failed with exit code 2, not 0\n"), "{failure}");
        assert!(failure.contains("    ls absent\n") && failure.contains("No such file"), "{failure}");
        let failure = walk("<!-- readme: exit 1 -->\n```sh\ntrue\n```\n").unwrap_err().to_string();
        assert!(failure.starts_with("FAILED page.md:2: it did not fail with exit code 1\n"), "{failure}");
    }

    #[test]
    fn a_text_that_differs_fails_the_page_at_its_end() {
        let failure =
            walk("```sh\necho a\n```\n```text\nb\n```\n```sh\nexit 3\n```\n").unwrap_err().to_string();
        assert!(failure.starts_with("FAILED page.md:7: the shell has ended\n"), "{failure}");
        let failure = walk("```sh\necho a\n```\n```text\nb\n```\n").unwrap_err().to_string();
        assert_eq!(failure, "FAILED page.md: 1 texts differ");
    }

    #[test]
    fn a_difference_shows_the_expected_and_the_actual_output() {
        let failure = Failure {
            place: "page.md:1".to_owned(),
            what: "it does not show what the page says".to_owned(),
            commands: Some("echo a".to_owned()),
            expected: Some(("a\nb\n".to_owned(), "page.md:4".to_owned(), 1)),
            got: "a\nc\n".to_owned(),
            others: vec![("serve".to_owned(), "listening".to_owned())],
        };
        let expected = "FAILED page.md:1: it does not show what the page says\n  commands:\n    echo a\n  \
             expected (page.md:4):\n    a\n    b\n  first line that is not shown:\n    b\n  got:\n    a\n    c\n  \
             the terminal `serve`:\n    listening\n";
        assert_eq!(failure.to_string(), expected);
    }

    #[test]
    fn a_terminal_that_has_ended_shows_nothing_more() {
        let page = "<!-- readme: serve runs on -->\n```sh\necho broken\n```\n";
        let failure = walk(page).unwrap_err().to_string();
        assert!(
            failure.starts_with("FAILED page.md:2: what runs in the terminal `serve` has ended\n"),
            "{failure}"
        );
        let failure = walk("<!-- readme: listen shows -->\n```text\na\n```\n").unwrap_err().to_string();
        assert!(failure.contains("nothing runs in the terminal `listen`"), "{failure}");
    }
}
