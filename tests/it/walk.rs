//! Checks the walk of an event in `host/docs/architecture.md` against the code.

use std::path::Path;

/// The most lines of a function on the walk.
const LINES_MAX: usize = 60;

/// Returns how many lines the longest function of this name has.
fn lines(code: &str, name: &str) -> Option<usize> {
    let all: Vec<_> = code.lines().collect();
    let is_head =
        |line: &&str| line.contains(&format!("fn {name}(")) || line.contains(&format!("fn {name}<"));
    let heads = all.iter().enumerate().filter(|(_, line)| is_head(line));
    let lengths = heads.filter_map(|(from, head)| {
        let indent = &head[..head.len() - head.trim_start().len()];
        let end = format!("{indent}}}");
        Some(all[from..].iter().position(|line| *line == end)? + 1)
    });
    lengths.max()
}

#[test]
fn each_function_of_the_walk_is_there_and_fits_on_a_screen() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(host.join("docs/architecture.md")).unwrap();
    let steps = page.lines().filter_map(|line| {
        let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1);
        cells.next()?.parse::<u32>().ok()?;
        Some((cells.next()?, cells.next()?))
    });
    let steps: Vec<_> = steps.collect();
    assert!(steps.len() >= 20, "{steps:?}");
    for (file, function) in steps {
        let code = std::fs::read_to_string(host.join(file)).unwrap();
        let found = lines(&code, function);
        assert!(found.is_some_and(|lines| lines <= LINES_MAX), "{file}: {function} has {found:?} lines");
    }
}
