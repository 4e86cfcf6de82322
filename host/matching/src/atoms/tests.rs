use crate::Filter;
use waypost_domain::FilterDialect;

use super::*;

/// Writes a filter's clauses, each as its atoms with `|` between them.
fn plan(text: &str, dialect: FilterDialect) -> String {
    let filter = Filter::parse(text, dialect).unwrap();
    let atom = |atom: &Atom<'_>| {
        let steps = atom.path.iter().map(|step| match step {
            Step::Name(name) => format!(".{name}"),
            Step::Any => ".*".to_owned(),
        });
        let test = match &atom.test {
            Test::Exists => String::new(),
            Test::String(text) => format!("='{text}'"),
            Test::Prefix(text) => format!("^'{text}'"),
            Test::Number(number) => format!("={number}"),
            Test::Beyond(side, Bound { number, inclusive }) => {
                let sign = if *side == Side::Above { ">" } else { "<" };
                format!("{sign}{}{number}", if *inclusive { "=" } else { "" })
            }
            Test::Bool(value) => format!("={value}"),
            Test::Null => "=null".to_owned(),
        };
        format!("${}{test}", steps.collect::<String>())
    };
    let clause = |clause: &Clause<'_>| clause.atoms.iter().map(atom).collect::<Vec<_>>().join("|");
    clauses(filter.query()).iter().map(clause).collect::<Vec<_>>().join(" ")
}

fn rfc9535(text: &str) -> String {
    plan(text, FilterDialect::Rfc9535)
}

fn jsonpath2(text: &str) -> String {
    plan(text, FilterDialect::Jsonpath2)
}

#[test]
fn takes_what_conditions_compare_with() {
    assert_eq!(rfc9535("$.d[?@.v=='x'].w"), "$.d.*.v $.d.*.v='x' $.d.*.w");
    assert_eq!(rfc9535("$[?'x'==$.t]"), "$.t $.t='x' $.*");
    assert_eq!(rfc9535("$.d[?@[0]==1.0 && @.b==true]"), "$.d.*.* $.d.*.*=1.0 $.d.*.b $.d.*.b=true $.d.*");
    assert_eq!(rfc9535("$.d[?@==null]"), "$.d.* $.d.*=null $.d.*");
    assert_eq!(rfc9535("$[?@.a>1]"), "$.*.a $.*.a>1 $.*");
    assert_eq!(rfc9535("$[?1>=@.a]"), "$.*.a $.*.a<=1 $.*");
    assert_eq!(rfc9535("$[?@.a<='x']"), "$.*.a $.*");
    assert_eq!(rfc9535("$[?@.a<=true]"), "$.*.a $.*.a=true $.*");
    assert_eq!(rfc9535("$[?@.a[?@.b=='x']]"), "$.*.a.*.b $.*.a.*.b='x' $.*.a.* $.*");
}

#[test]
fn says_nothing_where_nothing_is_certain() {
    for text in ["$", "$..a", "$..[?@.a=='x']", "$..*"] {
        assert_eq!(rfc9535(text), "", "{text}");
    }
    assert_eq!(rfc9535("$.d[?!@.a || @.b=='x']"), "$.d.*");
    assert_eq!(rfc9535("$.d[?@.a!='x']"), "$.d.*");
    assert_eq!(rfc9535("$.d[?@.a==@.b]"), "$.d.*");
    assert_eq!(rfc9535("$.d[?count(@.a)==0]"), "$.d.*");
    assert_eq!(rfc9535("$.d..a"), "$.d");
    assert_eq!(rfc9535("$..[?$.t=='x']"), "$.t $.t='x'");
    assert_eq!(jsonpath2("$..[?(@.a = 1)]"), "");
    assert_eq!(jsonpath2("$.d[?(not @.a)]"), "$.d");
    assert_eq!(jsonpath2("$.d[?(true)][keys()].a"), "$.d");
}

#[test]
fn takes_one_of_each_branch_of_an_or() {
    assert_eq!(rfc9535("$[?@.a=='x' || @.b==1]"), "$.*.a|$.*.b $.*.a='x'|$.*.b=1 $.*");
    let common = rfc9535("$.d[?(@.k=='a' && @.t=='x') || (@.k=='b' && @.t=='x')]");
    assert!(common.contains("$.d.*.k='a'|$.d.*.k='b' $.d.*.t='x' "), "{common}");
    assert_eq!(rfc9535("$['a','b']"), "$.a|$.b $.*");
    assert_eq!(rfc9535("$.d[?@.a==1, ?@.b==2].c"), "$.d.*.a|$.d.*.b $.d.* $.d.*.a=1|$.d.*.b=2 $.d.*.c");
    let many = |count| (0..count).map(|n| format!("@=={n}")).collect::<Vec<_>>().join("||");
    assert_eq!(rfc9535(&format!("$.d[?{}]", many(64))).matches('|').count(), 63);
    assert_eq!(rfc9535(&format!("$.d[?{}]", many(65))), "$.d.* $.d.*");
}

#[test]
fn functions_want_their_arguments() {
    assert_eq!(rfc9535("$.d[?length(@.a)==3]"), "$.d.*.a $.d.*");
    assert_eq!(rfc9535("$.d[?length(@.a)<count(@..b)]"), "$.d.*.a $.d.*");
    assert_eq!(rfc9535("$.d[?value(@.*.a)=='x']"), "$.d.*.*.a $.d.*.*.a='x' $.d.*");
    assert_eq!(rfc9535("$.d[?match(@.a,'ab.*')]"), "$.d.*.a $.d.*.a^'ab' $.d.*");
    assert_eq!(rfc9535("$.d[?match(@.a,'ab|cd')]"), "$.d.*.a $.d.*.a='ab'|$.d.*.a='cd' $.d.*");
    assert_eq!(rfc9535("$.d[?search(@.a,@.b)]"), "$.d.*.a $.d.*.b $.d.*");
    let many = (0..65).map(|n| format!("a{n}")).collect::<Vec<_>>().join("|");
    assert_eq!(rfc9535(&format!("$.d[?match(@,'{many}')]")), "$.d.* $.d.* $.d.*");
    let long = "é".repeat(20);
    let cut = "é".repeat(16);
    assert_eq!(rfc9535(&format!("$.d[?search(@,'^{long}')]")), format!("$.d.* $.d.*^'{cut}' $.d.*"));
}

#[test]
fn knows_what_jsonpath2_means() {
    assert_eq!(jsonpath2(r#"$[?(@.t = "x")]"#), "$.t $.t='x'");
    assert_eq!(jsonpath2(r#"$.d[*][?(@.v = 1)]"#), "$.d.*.v $.d.*.v=1|$.d.*.v=true $.d.*");
    assert_eq!(jsonpath2("$[?(false = @.v)]"), "$.v $.v=0|$.v=false");
    assert_eq!(jsonpath2("$[?(@.v >= 1)]"), "$.v $.v>=1|$.v=true");
    assert_eq!(jsonpath2("$[?(@.v < 2)]"), "$.v $.v<2|$.v=true|$.v=false");
    assert_eq!(jsonpath2(r#"$[?(@.v != "x" and @.w = [])]"#), "$.v $.w");
    assert_eq!(jsonpath2(r#"$[?(@.n = $.d[*][?(@.k = "x")]["v"])]"#), "$.n $.d.*.k $.d.*.k='x' $.d.*.v");
    assert_eq!(jsonpath2("$.map[@.k].v"), "$.map.k $.map.*.v");
    assert_eq!(jsonpath2(r#"$[?(@.u[substring(0,4)] = "http")]"#), "$.u $.u^'http'");
    assert_eq!(jsonpath2(r#"$[?("h" = @.u[charAt(0)])]"#), "$.u $.u^'h'");
    assert_eq!(jsonpath2(r#"$[?(@.u[charAt(1)] = "h")]"#), "$.u");
    assert_eq!(jsonpath2("$.a[?(@.b), 0]"), "$.a.b|$.a.* $.a|$.a.* $.a");
}

#[test]
fn keeps_paths_short() {
    let long = format!("$.a{}[?@.b==1]", ".a".repeat(20));
    assert!(rfc9535(&long).ends_with(&format!("${}", ".a".repeat(STEPS_MAX))));
    assert_eq!(rfc9535("$[0][0][0][0].a[0].b"), "$.*.*.*.*.a");
}

#[test]
fn is_described_in_words() {
    let of = |text: &str| {
        let filter = Filter::parse(text, FilterDialect::Jsonpath2)
            .or_else(|_| Filter::parse(text, FilterDialect::Rfc9535))
            .unwrap();
        clauses(filter.query()).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of("$.d[?@.t=='x']")[..2], ["existence of $.d[*].t", "equality on $.d[*].t"]);
    assert_eq!(of("$.d[?@.t=='x'||@.t==1]")[1], "membership on $.d[*].t");
    assert_eq!(of("$[?@.a<1||@.a>5]")[1], "range on $[*].a");
    assert_eq!(of("$[?match(@['o n'],'a.*')]")[1], "prefix on $[*]['o n']");
    assert_eq!(of(r#"$["it's"]"#), [r"existence of $['it\'s']"]);
    assert_eq!(of(r#"$[?(@.a = 1)]"#)[1], "equality on $.a");
    assert_eq!(of(r#"$[?(@.a > 0)]"#)[1], "range on $.a");
    assert_eq!(of(r#"$[?(@.a = 1 or @.b = "x")]"#)[1], "any of 2 conditions");
}
