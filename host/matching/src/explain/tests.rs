use crate::{Document, Filter, Step};
use waypost_domain::FilterDialect;

const EVENT: &str = r#"{"eventType": "ingest", "data": [
    {"destinationTable": "Files", "name": "a.csv", "size": 10},
    {"destinationTable": "Files", "name": "b.txt", "size": 200},
    {"destinationTable": "TransactionKeyValue", "key": "Tag", "value": "x"}
]}"#;

fn told(text: &str) -> String {
    let filter = Filter::parse(text, FilterDialect::Auto).unwrap();
    let explanation = filter.explain(&Document::parse(EVENT.as_bytes()).unwrap());
    let mut lines = format!("{}\n", explanation.reason());
    tell(&mut lines, &explanation.steps, "");
    lines
}

fn tell(lines: &mut String, steps: &[Step], indent: &str) {
    for step in steps {
        lines.push_str(&format!("{indent}{} {}\n", step.path, step.found));
        for condition in &step.conditions {
            let seen = condition.seen.join(", ");
            lines.push_str(&format!(
                "{indent}  {} {}/{} [{seen}]\n",
                condition.text, condition.passed, condition.tested
            ));
            tell(lines, &condition.steps, &format!("{indent}    "));
        }
    }
}

#[test]
fn says_where_a_path_ends() {
    insta::assert_snapshot!(told("$.data[*].value"), @r#"
    the filter finds 1 node
    $.data 1
    $.data[*] 3
    $.data[*].value 1
    "#);
    insta::assert_snapshot!(told("$.data[*].mimetype"), @r#"
    `$.data[*]` finds 3 nodes, but `$.data[*].mimetype` finds nothing
    $.data 1
    $.data[*] 3
    $.data[*].mimetype 0
    "#);
    insta::assert_snapshot!(told("$"), @r#"
    the filter finds 1 node
    $ 1
    "#);
    insta::assert_snapshot!(told("$[0]"), @r#"
    `$[0]` finds nothing
    $[0] 0
    "#);
}

#[test]
fn says_which_condition_nothing_passes() {
    insta::assert_snapshot!(told("$.data[?@.destinationTable=='Files' && @.size > 1000]"), @r#"
    `$.data` finds 1 node, but none of the 3 tested nodes passes `@.size > 1000`: it saw 10, 200, nothing
    $.data 1
    $.data[?@.destinationTable == 'Files' && @.size > 1000] 0
      @.destinationTable == 'Files' 2/3 ["TransactionKeyValue"]
      @.size > 1000 0/3 [10, 200, nothing]
    "#);
    insta::assert_snapshot!(told("$.data[?@.name=='a.csv' && @.size == 200]"), @r#"
    `$.data` finds 1 node, but of 3 tested nodes none passes all conditions, though each is passed by some
    $.data 1
    $.data[?@.name == 'a.csv' && @.size == 200] 0
      @.name == 'a.csv' 1/3 ["b.txt", nothing]
      @.size == 200 1/3 [10, nothing]
    "#);
    insta::assert_snapshot!(told("$..[?match(@.name, '[0-9]+') || @.key == 'y']"), @r#"
    none of the 14 tested nodes passes `match(@.name, '[0-9]+') || @.key == 'y'`: it saw nothing, "a.csv", "b.txt", "Tag"
    $..[?match(@.name, '[0-9]+') || @.key == 'y'] 0
      match(@.name, '[0-9]+') || @.key == 'y' 0/14 [nothing, "a.csv", "b.txt", "Tag"]
    "#);
    insta::assert_snapshot!(told("$.eventType[?@ == 1]"), @r#"
    `$.eventType` finds 1 node, but there is no node to test
    $.eventType 1
    $.eventType[?@ == 1] 0
      @ == 1 0/0 []
    "#);
}

#[test]
fn follows_the_paths_of_conditions() {
    insta::assert_snapshot!(
        told(r#"$[?(@["eventType"] = "ingest" and $["data"][*][?(@["key"] = "Tag" and @["value"] = "y")])]"#),
        @r#"
        the tested node does not pass `$.data[*][?(@.key = "Tag" and @.value = "y")]`: `$.data[*]` finds 3 nodes, but none of the 3 tested nodes passes `@.value = "y"`: it saw nothing, "x"
        $[?(@.eventType = "ingest" and $.data[*][?(@.key = "Tag" and @.value = "y")])] 0
          @.eventType = "ingest" 1/1 []
          $.data[*][?(@.key = "Tag" and @.value = "y")] 0/1 []
            $.data 1
            $.data[*] 3
            $.data[*][?(@.key = "Tag" and @.value = "y")] 0
              @.key = "Tag" 1/3 [nothing]
              @.value = "y" 0/3 [nothing, "x"]
        "#
    );
}

#[test]
fn follows_the_path_of_the_node_that_leads_the_furthest() {
    insta::assert_snapshot!(told("$[?@[?@.size > 1000]]"), @r#"
    none of the 2 tested nodes passes `@[?@.size > 1000]`: none of the 3 tested nodes passes `@.size > 1000`: it saw 10, 200, nothing
    $[?@[?@.size > 1000]] 0
      @[?@.size > 1000] 0/2 []
        @[?@.size > 1000] 0
          @.size > 1000 0/3 [10, 200, nothing]
    "#);
}

#[test]
fn says_what_functions_gave_and_what_was_compared_with_what() {
    insta::assert_snapshot!(told("$[?length($.data) >= 4]"), @r#"
    none of the 2 tested nodes passes `length($.data) >= 4`: it saw 3
    $[?length($.data) >= 4] 0
      length($.data) >= 4 0/2 [3]
    "#);
    insta::assert_snapshot!(told("$.data[?@.name == $.eventType]"), @r#"
    `$.data` finds 1 node, but none of the 3 tested nodes passes `@.name == $.eventType`: it saw "a.csv" == "ingest", "b.txt" == "ingest", nothing == "ingest"
    $.data 1
    $.data[?@.name == $.eventType] 0
      @.name == $.eventType 0/3 ["a.csv" == "ingest", "b.txt" == "ingest", nothing == "ingest"]
    "#);
}
