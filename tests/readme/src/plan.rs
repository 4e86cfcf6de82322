//! From the blocks of a page to the steps to take. Every block has to be claimed: run, compared, saved, or skipped with a
//! reason.

use crate::markdown::{Block, Fault, Item, Note};

/// The reader's own terminal: commands without a comment are typed there.
pub(crate) const SHELL: &str = "shell";

/// A step of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Type(Typed),
    /// A terminal shows this, after what it showed before.
    Look {
        terminal: String,
        shows: Text,
    },
    /// This text is saved to a file in the folder of the reader's terminal.
    File {
        name: String,
        text: Text,
    },
    /// `serve` and `listen` run, and `$UUID` is a subscription to everything.
    Given {
        line: usize,
    },
    Skip {
        line: usize,
        language: String,
        reason: String,
    },
}

/// Commands that are typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) commands: Text,
    pub(crate) terminal: Terminal,
    /// The exit code of the command that fails; 0 when none does.
    pub(crate) exit: i32,
    /// Typed again until it shows what it should.
    pub(crate) again: bool,
    /// The reader goes to an empty folder first.
    pub(crate) empty_folder: bool,
    pub(crate) shows: Option<Text>,
}

impl Typed {
    /// Commands typed in the reader's terminal, which all succeed.
    pub(crate) fn of(commands: Text) -> Self {
        let terminal = Terminal::Shell;
        Self { commands, terminal, exit: 0, again: false, empty_folder: false, shows: None }
    }
}

/// Where commands are typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Terminal {
    Shell,
    /// A terminal of its own, in which they keep running.
    Own(String),
}

/// A block's text, and the line of its fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Returns the steps of a page.
///
/// # Errors
/// All faults of the page.
pub(crate) fn plan(items: Vec<Item>) -> Result<Vec<Step>, Vec<Fault>> {
    let (mut steps, mut faults) = (Vec::new(), Vec::new());
    for item in items {
        let claimed = match item {
            Item::Given(note) if note.words == "given serve" => {
                steps.push(Step::Given { line: note.line });
                Ok(())
            }
            Item::Given(note) => Err(unknown(&note)),
            Item::Block(block) => claim(block, &mut steps),
        };
        faults.extend(claimed.err());
    }
    if faults.is_empty() { Ok(steps) } else { Err(faults) }
}

/// Adds the step of a block.
fn claim(block: Block, steps: &mut Vec<Step>) -> Result<(), Fault> {
    let Block { line, language, text, note, follows } = block;
    if let Some(reason) = note.as_ref().and_then(|note| note.words.strip_prefix("not run:")) {
        let reason = reason.trim().to_owned();
        if reason.is_empty() {
            return Err(Fault { line, what: "`not run:` needs a reason".to_owned() });
        }
        steps.push(Step::Skip { line, language, reason });
        return Ok(());
    }
    let text = Text { line, text };
    match (language.as_str(), note) {
        ("sh", note) => steps.push(Step::Type(typed(text, note)?)),
        ("text", None) if follows => output(text, steps)?,
        ("text", Some(note)) => {
            let terminal = note.words.strip_suffix(" shows").ok_or_else(|| unknown(&note))?;
            steps.push(Step::Look { terminal: terminal.to_owned(), shows: text });
        }
        (_, Some(note)) => {
            let name = note.words.strip_prefix("file ").ok_or_else(|| unknown(&note))?;
            steps.push(Step::File { name: name.trim().to_owned(), text });
        }
        (_, None) => {
            let what = format!(
                "nobody looks at this `{language}` block: say above it what it is (tests/readme/README.md tells how)"
            );
            return Err(Fault { line, what });
        }
    }
    Ok(())
}

/// Assigns a text to the commands that show it.
fn output(text: Text, steps: &mut Vec<Step>) -> Result<(), Fault> {
    let line = text.line;
    match steps.last_mut() {
        Some(Step::Type(typed)) if typed.shows.is_none() => typed.shows = Some(text),
        // The output of commands that are not run.
        Some(Step::Skip { language, reason, .. }) if language == "sh" => {
            let reason = reason.clone();
            steps.push(Step::Skip { line, language: "text".to_owned(), reason });
        }
        Some(_) | None => {
            let what =
                "this text is behind no commands: say above it whose it is (`<!-- readme: listen shows -->`)";
            return Err(Fault { line, what: what.to_owned() });
        }
    }
    Ok(())
}

/// Reads the comment above commands.
fn typed(commands: Text, note: Option<Note>) -> Result<Typed, Fault> {
    let mut typed = Typed::of(commands);
    let Some(note) = note else { return Ok(typed) };
    for word in note.words.split(',').map(str::trim) {
        let exit = word.strip_prefix("exit ").and_then(|code| code.parse().ok());
        let runs_on = word.strip_suffix(" runs on").filter(|name| !name.is_empty() && *name != SHELL);
        match (word, exit, runs_on) {
            ("ask again", ..) => typed.again = true,
            ("in an empty folder", ..) => typed.empty_folder = true,
            (_, Some(code), _) => typed.exit = code,
            (.., Some(name)) => typed.terminal = Terminal::Own(name.to_owned()),
            (_, None, None) => return Err(unknown(&note)),
        }
    }
    Ok(typed)
}

fn unknown(note: &Note) -> Fault {
    let what =
        format!("`readme: {}` is no comment that tests/readme/README.md knows for this block", note.words);
    Fault { line: note.line, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::markdown::read;

    fn steps(page: &str) -> Vec<Step> {
        plan(read(page).unwrap()).unwrap()
    }

    fn faults(page: &str) -> Vec<usize> {
        plan(read(page).unwrap()).unwrap_err().into_iter().map(|fault| fault.line).collect()
    }

    #[test]
    fn commands_show_the_text_below_them() {
        let found = steps("```sh\nls\n```\n```text\na\n```\n");
        let [Step::Type(typed)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((typed.terminal == Terminal::Shell, typed.exit, typed.again), (true, 0, false));
        assert_eq!(typed.shows, Some(Text { line: 4, text: "a\n".to_owned() }));
    }

    #[test]
    fn a_comment_says_where_and_how_commands_run() {
        let found = steps(
            "<!-- readme: serve runs on -->\n```sh\na\n```\n<!-- readme: ask again, exit 1 -->\n```sh\nb\n```\n",
        );
        let [Step::Type(first), Step::Type(second)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(first.terminal, Terminal::Own("serve".to_owned()));
        assert_eq!((second.again, second.exit, second.empty_folder), (true, 1, false));
        assert_eq!(faults("<!-- readme: runs wild -->\n```sh\na\n```\n"), [1]);
        assert_eq!(faults("<!-- readme: shell runs on -->\n```sh\na\n```\n"), [1]);
        assert_eq!(faults("<!-- readme: exit one -->\n```sh\na\n```\n"), [1]);
    }

    #[test]
    fn a_text_elsewhere_names_its_terminal() {
        let found = steps("Words.\n<!-- readme: listen shows -->\n```text\na\n```\n");
        assert!(matches!(&found[..], [Step::Look { terminal, .. }] if terminal == "listen"));
        assert_eq!(faults("```sh\na\n```\nThe second terminal shows:\n```text\nb\n```\n"), [5]);
        assert_eq!(faults("```sh\na\n```\n```text\nb\n```\n```text\nc\n```\n"), [7]);
    }

    #[test]
    fn a_file_is_saved_under_its_name() {
        let found = steps("<!-- readme: file waypost.toml -->\n```toml\na = 1\n```\n");
        assert!(
            matches!(&found[..], [Step::File { name, text }] if name == "waypost.toml" && text.text == "a = 1\n")
        );
    }

    // A new block that is not claimed fails, which keeps the pages in step with the program.
    #[test]
    fn a_block_that_is_not_claimed_is_a_fault() {
        for language in ["toml", "json", "python", "rust", "text", "bash"] {
            assert_eq!(faults(&format!("Words.\n```{language}\na\n```\n")), [2], "{language}");
        }
    }

    #[test]
    fn a_block_that_is_not_run_gives_a_reason_and_its_text_is_skipped_too() {
        let found = steps("<!-- readme: not run: it takes an hour -->\n```sh\na\n```\n```text\nb\n```\n");
        assert!(
            found
                .iter()
                .all(|step| matches!(step, Step::Skip { reason, .. } if reason == "it takes an hour"))
        );
        assert_eq!(found.len(), 2);
        assert_eq!(faults("<!-- readme: not run: -->\n```sh\na\n```\n"), [2]);
        assert_eq!(faults("<!-- readme: not run -->\n```sh\na\n```\n"), [1]);
    }

    #[test]
    fn only_a_known_given_comment_is_accepted() {
        assert_eq!(steps("<!-- readme: given serve -->\n"), [Step::Given { line: 1 }]);
        assert_eq!(faults("<!-- readme: given a miracle -->\n"), [1]);
    }
}
