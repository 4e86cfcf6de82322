//! What has to stand in an event for a filter to find anything: its necessary atoms.

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, JpQuery, Literal, Segment, Selector, SingularQuery,
    SingularQuerySegment, Test as Tested,
};

/// The longest path of an atom. serde_json reads 128 levels at most, so that a longer path never exists.
const STEPS_MAX: usize = 128;

/// One step from a value to its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The object's member of this name.
    Name(Box<str>),
    /// Each element of the array, each member of the object.
    Any,
}

/// What an atom asks of the values at its path: that one of them passes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Exists,
    String(Box<str>),
    /// Equal as the evaluator sees numbers; always finite.
    Number(f64),
    Bool(bool),
    Null,
}

/// "Some value at `path` passes `test`."
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Atom {
    pub(super) path: Vec<Step>,
    pub(super) test: Test,
}

/// How the index treats one filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Each of these holds in every event that matches; equalities where there are any, else one existence.
    /// Empty where nothing can be said: the filter is then tried on every event.
    pub(super) atoms: Vec<Atom>,
    /// Whether the (then only) atom holds in no other event, so that the filter need not be evaluated.
    pub(super) sufficient: bool,
}

impl Plan {
    /// Reads a filter's atoms off its syntax tree.
    pub(super) fn of(query: &JpQuery) -> Self {
        let mut reader = Reader { equalities: Vec::new(), paths: Vec::new(), exact: true };
        reader.path(Vec::new(), &query.segments);
        reader.plan()
    }
}

struct Reader {
    equalities: Vec<Atom>,
    /// The paths that have to exist, the whole expression's own among them.
    paths: Vec<Vec<Step>>,
    /// Whether equalities and paths say all that the filter says.
    exact: bool,
}

impl Reader {
    fn plan(self) -> Plan {
        let Self { equalities: mut atoms, paths, exact } = self;
        let one_condition = atoms.len() <= 1;
        if atoms.is_empty() {
            let longest = paths.iter().max_by_key(|path| path.len()).filter(|path| !path.is_empty());
            atoms.extend(longest.map(|path| Atom { path: path.clone(), test: Test::Exists }));
        }
        let mut sufficient = exact
            && one_condition
            && atoms.first().is_some_and(|atom| paths.iter().all(|path| covers(path, &atom.path)));
        for atom in &mut atoms {
            if atom.path.len() > STEPS_MAX {
                atom.path.truncate(STEPS_MAX);
                atom.test = Test::Exists;
                sufficient = false;
            }
        }
        Plan { atoms, sufficient }
    }

    /// Reads the path that starts at the values of `steps`.
    fn path(&mut self, mut steps: Vec<Step>, segments: &[Segment]) {
        for segment in segments {
            match segment {
                Segment::Selector(Selector::Name(name)) => steps.push(Step::Name(name.as_str().into())),
                Segment::Selector(Selector::Wildcard) => steps.push(Step::Any),
                Segment::Selector(Selector::Filter(filter)) => {
                    steps.push(Step::Any);
                    self.filter(&steps, filter);
                }
                // Some child, but not each.
                Segment::Selector(Selector::Index(_) | Selector::Slice(..)) | Segment::Selectors(_) => {
                    steps.push(Step::Any);
                    self.exact = false;
                }
                // What follows can be at any depth: only the way to here is known.
                Segment::Descendant(_) => {
                    self.exact = false;
                    break;
                }
            }
        }
        self.paths.push(steps);
    }

    /// Reads a condition on the values at `here`, which has to be true for one of them.
    fn filter(&mut self, here: &[Step], filter: &Filter) {
        match filter {
            Filter::And(parts) => parts.iter().for_each(|part| self.filter(here, part)),
            Filter::Or(_) => self.exact = false,
            Filter::Atom(FilterAtom::Filter { expr, not: false }) => self.filter(here, expr),
            Filter::Atom(FilterAtom::Test { expr, not: false }) => match expr.as_ref() {
                Tested::RelQuery(segments) => self.path(here.to_vec(), segments),
                Tested::AbsQuery(query) => self.path(Vec::new(), &query.segments),
                Tested::Function(_) => self.exact = false,
            },
            Filter::Atom(FilterAtom::Filter { not: true, .. } | FilterAtom::Test { not: true, .. }) => {
                self.exact = false;
            }
            Filter::Atom(FilterAtom::Comparison(comparison)) => self.comparison(here, comparison),
        }
    }

    fn comparison(&mut self, here: &[Step], comparison: &Comparison) {
        let (left, right) = comparison.vals();
        let ((Comparable::SingularQuery(query), Comparable::Literal(literal))
        | (Comparable::Literal(literal), Comparable::SingularQuery(query))) = (left, right)
        else {
            self.exact = false;
            return;
        };
        match comparison {
            Comparison::Eq(..) => {
                let path = self.singular(here, query);
                self.equalities.push(Atom { path, test: literal.into() });
            }
            // Nothing is neither above nor below a literal: the path exists at least.
            Comparison::Gt(..) | Comparison::Gte(..) | Comparison::Lt(..) | Comparison::Lte(..) => {
                let path = self.singular(here, query);
                self.paths.push(path);
                self.exact = false;
            }
            // True where the path does not exist, too.
            Comparison::Ne(..) => self.exact = false,
        }
    }

    fn singular(&mut self, here: &[Step], query: &SingularQuery) -> Vec<Step> {
        let (mut steps, segments) = match query {
            SingularQuery::Current(segments) => (here.to_vec(), segments),
            SingularQuery::Root(segments) => (Vec::new(), segments),
        };
        for segment in segments {
            match segment {
                SingularQuerySegment::Name(name) => steps.push(Step::Name(name.as_str().into())),
                SingularQuerySegment::Index(_) => {
                    steps.push(Step::Any);
                    self.exact = false;
                }
            }
        }
        steps
    }
}

/// Tells whether wherever `longer` leads to a value, its beginning is a way along `path`.
///
/// With every path of a filter covered so, the values on the way to the atom's value serve as the nodes that the
/// filter's `*`, `[?…]` and `@` want: the atom is sufficient.
fn covers(path: &[Step], longer: &[Step]) -> bool {
    path.len() <= longer.len()
        && path.iter().zip(longer).all(|(step, specific)| *step == Step::Any || step == specific)
}

impl From<&Literal> for Test {
    fn from(literal: &Literal) -> Self {
        match literal {
            Literal::String(text) => Self::String(text.as_str().into()),
            Literal::Int(number) => Self::Number(as_evaluated(*number)),
            Literal::Float(number) => Self::Number(*number),
            Literal::Bool(value) => Self::Bool(*value),
            Literal::Null => Self::Null,
        }
    }
}

/// Returns the number that the evaluator compares: it holds every number as an `f64`.
#[expect(clippy::cast_precision_loss, reason = "the evaluator loses the same")]
fn as_evaluated(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use crate::matching::Filter;

    use super::*;

    /// Writes a filter's plan as `path test` lines, `!` before a sufficient one.
    fn plan(text: &str) -> String {
        let filter = Filter::parse(text).unwrap();
        let mark = if filter.plan().sufficient { "!" } else { "" };
        let atoms = filter.plan().atoms.iter().map(|atom| {
            let step = |step: &Step| match step {
                Step::Name(name) => format!(".{name}"),
                Step::Any => ".*".to_owned(),
            };
            format!("{mark}${} {:?}", atom.path.iter().map(step).collect::<String>(), atom.test)
        });
        atoms.collect::<Vec<_>>().join(" & ")
    }

    #[test]
    fn takes_equalities_and_knows_when_they_suffice() {
        assert_eq!(plan("$.data[?@.value=='Blah'].value"), r#"!$.data.*.value String("Blah")"#);
        assert_eq!(plan("$[?$.eventType=='x']"), r#"!$.eventType String("x")"#);
        assert_eq!(plan("$.data[?'Blah'==@.value]"), r#"!$.data.*.value String("Blah")"#);
        assert_eq!(plan("$.tags[?@==1]"), "!$.tags.* Number(1.0)");
        assert_eq!(plan("$.a[?@.b[?@.c==true]]"), "!$.a.*.b.*.c Bool(true)");
        // `$.data` may be empty, `.key` missing, the two conditions met by different elements.
        assert_eq!(plan("$.data[?$.eventType=='x']"), r#"$.eventType String("x")"#);
        assert_eq!(plan("$.data[?@.value=='Blah'].key"), r#"$.data.*.value String("Blah")"#);
        assert_eq!(plan("$.d[?@.t=='K' && @.k==null]"), r#"$.d.*.t String("K") & $.d.*.k Null"#);
        assert_eq!(plan("$.d[?@.t[0]=='K']"), r#"$.d.*.t.* String("K")"#);
    }

    #[test]
    fn takes_an_existence_where_there_is_no_equality() {
        assert_eq!(plan("$.data"), "!$.data Exists");
        assert_eq!(plan("$.data[*].value"), "!$.data.*.value Exists");
        assert_eq!(plan("$.data[?@.value]"), "!$.data.*.value Exists");
        assert_eq!(plan("$.data[0,1].value"), "$.data.*.value Exists");
        assert_eq!(plan("$.data[?@.size > 5]"), "$.data.*.size Exists");
        assert_eq!(plan("$.data[?@.a=='x' || @.b=='y']"), "$.data.* Exists");
        assert_eq!(plan("$.data[?!@.a && @.b != 1]"), "$.data.* Exists");
        assert_eq!(plan("$.data..value"), "$.data Exists");
    }

    #[test]
    fn says_nothing_where_nothing_is_certain() {
        assert_eq!(plan("$"), "");
        assert_eq!(plan("$..value"), "");
        let long = format!("$.a{}[?@.b==1]", ".a".repeat(200));
        assert!(plan(&long).starts_with("$.a.a") && plan(&long).ends_with(".a Exists"));
    }
}
