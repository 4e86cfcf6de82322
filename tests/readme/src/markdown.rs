//! The blocks of a page, with the comments that say what to do with them.

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The line of its fence, from 1.
    pub(crate) line: usize,
    pub(crate) language: String,
    /// Its lines, with their line ends.
    pub(crate) text: String,
    /// What the comment right above it says.
    pub(crate) note: Option<Note>,
    /// Whether only blank lines separate it from the block before.
    pub(crate) follows: bool,
}

/// A comment `<!-- readme: … -->`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) line: usize,
    pub(crate) words: String,
}

/// What the runner finds on a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Block(Block),
    /// A comment that begins with `given`: it belongs to no block.
    Given(Note),
}

/// A line that the runner cannot do anything with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// An open fence.
struct Fence {
    indent: usize,
    ticks: usize,
    block: Block,
}

/// Reads a page.
///
/// # Errors
/// All faults of the page.
pub(crate) fn read(page: &str) -> Result<Vec<Item>, Vec<Fault>> {
    let mut reader = Reader::default();
    for (at, line) in page.lines().enumerate() {
        reader.line(at + 1, line);
    }
    reader.end()
}

#[derive(Default)]
struct Reader {
    items: Vec<Item>,
    faults: Vec<Fault>,
    fence: Option<Fence>,
    note: Option<Note>,
    /// Whether only blank lines have come since the last block.
    follows: bool,
    /// Whether an indented line here would be a block: it is, after a blank line outside a list.
    blank: bool,
    list: bool,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) {
        if self.fence.is_some() {
            return self.inside(line);
        }
        let trimmed = line.trim();
        let indent = line.len() - line.trim_start().len();
        if trimmed.starts_with("```") {
            return self.open(number, trimmed, indent);
        }
        if let Some(note) = trimmed.strip_prefix("<!-- readme:") {
            return self.comment(number, note);
        }
        if trimmed.is_empty() {
            self.blank = true;
            return;
        }
        self.stray_note();
        if indent >= 4 && self.blank && !self.list {
            self.fault(number, "an indented block: put it between ``` fences, with its language");
        }
        self.list = is_list(trimmed) || (self.list && (indent > 0 || !self.blank));
        (self.blank, self.follows) = (false, false);
    }

    /// Begins a block.
    fn open(&mut self, number: usize, fence: &str, indent: usize) {
        let language = fence.trim_start_matches('`');
        let ticks = fence.len() - language.len();
        let language = language.trim().to_owned();
        if language.is_empty() {
            self.fault(number, "a block without a language: write ```sh, ```text, …");
        }
        let (note, follows) = (self.note.take(), self.follows);
        let block = Block { line: number, language, text: String::new(), note, follows };
        self.fence = Some(Fence { indent, ticks, block });
    }

    /// Adds a line to the block, or ends it.
    fn inside(&mut self, line: &str) {
        let Some(mut fence) = self.fence.take() else { return };
        let closing = line.trim();
        if closing.len() >= fence.ticks && closing.bytes().all(|byte| byte == b'`') {
            self.items.push(Item::Block(fence.block));
            (self.follows, self.blank) = (true, false);
            return;
        }
        let blanks = line.len() - line.trim_start_matches(' ').len();
        fence.block.text += &line[blanks.min(fence.indent)..];
        fence.block.text.push('\n');
        self.fence = Some(fence);
    }

    fn comment(&mut self, number: usize, note: &str) {
        self.stray_note();
        let Some(words) = note.strip_suffix("-->") else {
            return self.fault(number, "a comment that does not end in its line");
        };
        let note = Note { line: number, words: words.trim().to_owned() };
        if note.words.starts_with("given ") {
            self.items.push(Item::Given(note));
        } else {
            self.note = Some(note);
        }
    }

    /// Reports a comment that no block followed.
    fn stray_note(&mut self) {
        if let Some(note) = self.note.take() {
            self.fault(note.line, "a comment that does not stand right above a block");
        }
    }

    fn fault(&mut self, line: usize, what: &str) {
        self.faults.push(Fault { line, what: what.to_owned() });
    }

    fn end(mut self) -> Result<Vec<Item>, Vec<Fault>> {
        self.stray_note();
        if let Some(fence) = self.fence.take() {
            self.fault(fence.block.line, "a block without an end");
        }
        if self.faults.is_empty() { Ok(self.items) } else { Err(self.faults) }
    }
}

/// Returns whether a line begins an item of a list.
fn is_list(line: &str) -> bool {
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    ["- ", "* ", "+ "].iter().any(|mark| line.starts_with(mark))
        || (digits.len() < line.len() && (digits.starts_with(". ") || digits.starts_with(") ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(page: &str) -> Vec<Block> {
        let items = read(page).unwrap().into_iter();
        items
            .filter_map(|item| match item {
                Item::Block(block) => Some(block),
                Item::Given(_) => None,
            })
            .collect()
    }

    fn faults(page: &str) -> Vec<(usize, String)> {
        read(page).unwrap_err().into_iter().map(|fault| (fault.line, fault.what)).collect()
    }

    #[test]
    fn a_block_has_its_line_language_and_text() {
        let found = blocks("# Title\n\nWords.\n\n```sh\nls\n\n  -l\n```\nMore.\n");
        let [block] = &found[..] else { panic!("{found:?}") };
        assert_eq!((block.line, block.language.as_str(), block.text.as_str()), (5, "sh", "ls\n\n  -l\n"));
        assert_eq!((&block.note, block.follows), (&None, false));
    }

    #[test]
    fn a_block_follows_another_only_across_blank_lines_and_comments() {
        let follows =
            |between: &str| blocks(&format!("```sh\na\n```\n{between}```text\nb\n```\n"))[1].follows;
        assert!(follows("") && follows("\n\n") && follows("\n<!-- readme: not run: why -->\n"));
        assert!(!follows("The second terminal shows:\n") && !follows("\nIt says:\n\n"));
    }

    #[test]
    fn a_comment_belongs_to_the_block_below_it() {
        let found = blocks("<!-- readme: exit 1 -->\n```sh\na\n```\n\n```sh\nb\n```\n");
        assert_eq!(found[0].note, Some(Note { line: 1, words: "exit 1".to_owned() }));
        assert_eq!(found[1].note, None);
        let found =
            faults("<!-- readme: exit 1 -->\nWords between.\n```sh\na\n```\n<!-- readme: exit 2 -->\n");
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 6]);
        assert_eq!(faults("<!-- readme: not run:\nwhy -->\n")[0].0, 1);
    }

    #[test]
    fn a_given_comment_is_an_item_between_the_blocks() {
        let found = read("```sh\na\n```\n<!-- readme: given serve -->\nWords.\n```sh\nb\n```\n").unwrap();
        assert!(
            matches!(&found[..], [Item::Block(_), Item::Given(note), Item::Block(_)] if note.words == "given serve")
        );
    }

    #[test]
    fn other_comments_are_ignored() {
        assert_eq!(blocks("<!-- a remark -->\n```sh\na\n```\n")[0].note, None);
    }

    // A block that no rule sees would never be run.
    #[test]
    fn a_block_cannot_hide() {
        assert_eq!(faults("```\nls\n```\n")[0].0, 1);
        assert_eq!(faults("Words:\n\n    ls -l\n")[0].0, 3);
        assert_eq!(faults("```sh\nls\n")[0].0, 1);
        assert!(blocks("- a list\n\n    goes on\n\n1. another\n\n      goes on\n").is_empty());
        assert_eq!(faults("- a list\n\nThe end.\n\n    ls\n")[0].0, 5);
    }

    #[test]
    fn a_fence_may_be_indented_and_longer() {
        let found = blocks("- one:\n  ```sh\n  ls\n    -l\n  ```\n\n````text\n```\n````\n");
        assert_eq!((found[0].text.as_str(), found[1].text.as_str()), ("ls\n  -l\n", "```\n"));
    }
}
