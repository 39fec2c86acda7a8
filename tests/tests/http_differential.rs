//! Our parser beside `httparse`, on generated and mutated heads.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test")]

use pelton::http::{Exchange, Step};
use pelton_tests::damage::Damage;
use pelton_tests::heads::{Foreign, LIMITS, RULES, compare};
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::{Index, select};

fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "/lookup/[a-z0-9%?/._~-]{0,12}",
        2 => "/lookup/[0-9]{1,7}",
        1 => Just("/healthz".to_owned()),
        1 => "https?://[a-z.:0-9\\[\\]]{0,8}(/lookup/[a-z]{1,3})?(\\?[a-z/]{0,3})?",
        1 => Just("*".to_owned()),
        1 => "[!-~]{1,12}",
    ]
}

fn field() -> impl Strategy<Value = String> {
    let length = prop_oneof![
        3 => "[0-9]{1,2}".prop_map(|n| format!("Content-Length: {n}\r\n")),
        1 => "[-+0-9, x]{0,21}".prop_map(|n| format!("content-length: {n}\r\n")),
    ];
    let coding = select(vec!["chunked", "Chunked", "gzip, chunked", "xchunked", ", chunked", ""])
        .prop_map(|coding| format!("Transfer-Encoding: {coding}\r\n"));
    prop_oneof![
        4 => "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}:[ \t]{0,2}[ -~\t]{0,60}[ \t]{0,2}\r\n",
        1 => length,
        1 => coding,
        1 => "(Connection|Expect|If-None-Match): [a-z0-9\", -]{0,40}\r\n",
        1 => "Host: ?[a-z0-9.:/@\\[\\]]{0,12}\r\n",
    ]
}

fn head() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![
        6 => Just("GET".to_owned()),
        2 => select(vec!["HEAD", "POST", "PUT", "OPTIONS", "CONNECT"]).prop_map(str::to_owned),
        1 => "[A-Za-z!#.~_-]{1,40}",
    ];
    let version = select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"]);
    let host = select(vec!["Host: a\r\n", "Host: a\r\n", "Host: a\r\n", ""]);
    let fields = proptest::collection::vec(field(), 0..6);
    let parts = (method, target(), version, host, fields, "[ -~]{0,8}");
    parts.prop_map(|(method, target, version, host, fields, rest)| {
        let fields = fields.concat();
        format!("{method} {target} {version}\r\n{host}{fields}\r\n{rest}").into_bytes()
    })
}

fn damage() -> impl Strategy<Value = (Index, Damage)> {
    let byte = || {
        prop_oneof![
            2 => select(b"\r\n \t:,;#%?/\"\0\x0b\x7f\x80\xff0aGH".to_vec()),
            1 => any::<u8>(),
        ]
    };
    let damage = prop_oneof![
        byte().prop_map(Damage::Replace),
        byte().prop_map(Damage::Insert),
        Just(Damage::Remove),
        (1..24_u8).prop_map(Damage::Repeat),
    ];
    (any::<Index>(), damage)
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(4096))]

    #[test]
    fn generated_heads_mean_the_same_or_break_a_named_rule(input in head()) {
        prop_assert_eq!(compare(&input), Ok(()));
    }

    #[test]
    fn damaged_heads_mean_the_same_or_break_a_named_rule(
        mut input in head(),
        all_damage in proptest::collection::vec(damage(), 1..5),
    ) {
        for (at, damage) in all_damage {
            damage.apply(&mut input, at.index(usize::from(u16::MAX)));
        }
        prop_assert_eq!(compare(&input), Ok(()));
    }
}

#[test]
fn every_rule_is_a_disagreement_that_there_is() {
    let long = "x".repeat(33);
    let inputs: Vec<String> = vec![
        "GET / HTTP/1.1\nHost: a\n\n".into(),
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET / HTTP/1.1\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,1\r\n\r\n".into(),
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n".into(),
        format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    assert_eq!(inputs.len(), RULES.len());
    for (rule, input) in RULES.iter().zip(&inputs) {
        let foreign = Foreign::read(input.as_bytes()).expect("httparse takes it");
        assert!((rule.holds)(&foreign), "{}: {}", rule.section, rule.name);
        let step = Exchange::new().next(input.as_bytes(), &LIMITS);
        let Step::Refused(refusal) = step else { panic!("{}: {step:?}", rule.name) };
        assert!(rule.refusals.contains(&refusal), "{}: {refusal:?}", rule.name);
    }
}
