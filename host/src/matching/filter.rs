//! One filter: an RFC 9535 expression, parsed once and evaluated by the crate jsonpath-rust.

use std::fmt;

use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::Value;

use super::atoms::Plan;
use super::cost;
use super::error::FilterError;
use super::limits;
use super::local::Local;

/// A subscription's filter. An event matches when the expression finds at least one node in it.
#[derive(Clone)]
pub struct Filter {
    text: Box<str>,
    query: JpQuery,
    plan: Plan,
    local: Option<Local>,
}

impl Filter {
    /// Parses an RFC 9535 expression.
    ///
    /// # Errors
    ///
    /// The text is no such expression, or passes a limit (length, nesting, `..`, unions, joins).
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        limits::check_text(text)?;
        let query = parse_json_path(text).map_err(|error| FilterError::parse(text, &error))?;
        limits::check_spaces(text)?;
        cost::check(text, &query)?;
        let plan = Plan::of(&query);
        let local = Local::of(&query);
        Ok(Self { text: text.into(), query, plan, local })
    }

    /// Returns the expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns how the index treats this filter.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns how to try this filter without parsing the whole event, where that can be done.
    pub(super) fn local(&self) -> Option<&Local> {
        self.local.as_ref()
    }

    /// Returns the nodes that the expression finds, in the order of RFC 9535.
    pub fn find<'v>(&self, event: &'v Value) -> Vec<&'v Value> {
        // The evaluator's only error is a result that is no node, which a query from `$` does not have.
        let found = js_path_process(&self.query, event).unwrap_or_default();
        found.into_iter().map(|node| node.val()).collect()
    }

    /// Tells whether the expression finds anything.
    pub fn matches(&self, event: &Value) -> bool {
        !self.find(event).is_empty()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_nodes_in_order() {
        let event =
            json!({"data": [{"value": "Blah", "key": 1}, {"value": "x"}, {"value": "Blah", "key": 2}]});
        let filter = Filter::parse("$.data[?@.value=='Blah'].key").unwrap();
        assert_eq!(filter.find(&event), [&json!(1), &json!(2)]);
        assert!(filter.matches(&event));
        assert!(!filter.matches(&json!({"data": []})));
        assert_eq!(filter.text(), "$.data[?@.value=='Blah'].key");
    }

    #[test]
    fn refuses_what_is_too_long_or_too_deep_before_parsing() {
        let long = format!("$.{}", "a".repeat(4095));
        assert!(Filter::parse(&long[..4096]).is_ok());
        assert!(Filter::parse(&long).unwrap_err().message.contains("at most 4096 bytes"));
        let nested = |depth: usize| format!("$[?{}@.a{}]", "(".repeat(depth), ")".repeat(depth));
        assert!(Filter::parse(&nested(31)).is_ok());
        assert_eq!(Filter::parse(&nested(32)).unwrap_err().column, 35);
        assert!(Filter::parse("$[?@.a == '((((((((((((((((((((((((((((((((((((((((((((']").is_ok());
        // The grammar's time triples with every two levels of these: 1.5 s at 16.
        let calls = format!("$[?{}@.a{}]", "value(@[?".repeat(5), "])".repeat(5));
        assert!(Filter::parse(&calls).unwrap_err().message.contains("function calls"));
    }

    #[test]
    fn refuses_what_would_multiply_in_the_evaluator() {
        for (accepted, refused) in [
            ("$..a", "$..a..b"),
            ("$..[?@.x]", "$..[?@..x]"),
            ("$['a','b','c']['a','b','c']['d','e']", "$[*,*][*,*][*,*][*,*]"),
            ("$..['a','b'][*,0]", "$..[*,*][*,*]"),
            ("$.a[?@.b == $.c.d && $.e && count(@.f[*]) > 1]", "$.a[?count($.f[*]) > 1]"),
            (r"$.a[?match(@.b, '\\w{3}[a-z]+.*')]", "$.a[?match(@.b, '((a{99}){99}){9}')]"),
            ("$.a[?search(@.b, 'x[')]", "$.a[?search(@.b, $.c)]"),
            ("$.a[?@.x[?@.y]]", "$.a[?@[?@.y]]"),
            ("$.a[?@.x == 1e308]", "$.a[?@.x == 1e309]"),
            ("$.a [ 'b' ]", "$.a b"),
        ] {
            assert!(Filter::parse(accepted).is_ok(), "{accepted}");
            assert!(Filter::parse(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn points_at_what_passes_a_limit() {
        let column = |text| Filter::parse(text).unwrap_err().column;
        assert_eq!(column("$.a[?@.x == -1e309]"), 13);
        assert_eq!(column("$..a..b"), 5);
        assert_eq!(column("$.é b"), 5);
        assert_eq!(column("$.é[?@.a && @[?@.y]]"), 13);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            if let Err(error) = Filter::parse(&text) {
                prop_assert!(error.column <= text.chars().count() + 1);
                prop_assert_eq!(error.caret(&text).lines().count(), 2);
            }
        }

        #[test]
        fn no_text_made_of_tokens_makes_parser_or_evaluator_panic(
            tokens in prop::collection::vec(
                prop::sample::select(vec![
                    "$", "@", ".", "..", "[", "]", "(", ")", "?", "*", ",", ":", "-1", "0", "7", "1e400", "'a'", "\"", "a",
                    "==", "!=", "<", "=", "&&", "||", "!", "and", "not", "length(", "match(", "value(", " ", "\\u00", "é",
                ]),
                0..24,
            ),
        ) {
            let text = format!("${}", tokens.concat());
            match Filter::parse(&text) {
                Ok(filter) => drop(filter.find(&json!({"a": [{"a": "x"}, [0, -1, "é"], null]}))),
                Err(error) => prop_assert!(error.column <= text.chars().count() + 1),
            }
        }
    }
}
