//! Patterns against a table of cases, against the `regex` crate as an oracle, and against hostile input.

use proptest::prelude::*;
use regex::Regex;
use tidewire_core::limits::TOPIC_BYTES_MAX;
use tidewire_core::{Pattern, RESERVED_PREFIXES, TopicError, is_reserved};

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a pattern")
}

#[test]
fn stars_stop_at_separators_and_double_stars_do_not() {
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("orders", &["orders"], &["order", "orders2", "Orders", ""]),
        (
            "order:*",
            &["order:7", "order:", "order:é x"],
            &["order", "order:7:a", "order:7/a", "order:7.a", "orders:7"],
        ),
        ("*", &["orders", "é"], &["a:b", "a/b", "a.b"]),
        ("**", &["orders", "a:b/c.d"], &["user:42", "presence:room"]),
        ("room:**", &["room:", "room:a/b:c"], &["room", "rooms:a"]),
        (
            "*:created",
            &["order:created", ":created"],
            &["order:7:created", "created"],
        ),
        (
            "a*b*c",
            &["abc", "a--b--c", "abbcc", "abcbc"],
            &["ab:c", "acb", "a:bc"],
        ),
        ("**/x/*", &["a/b/x/c", "/x/", "x/x/x/"], &["x/c", "a/x/b/c"]),
        ("a***b", &["ab", "a:/.b"], &["a", "b", "ba"]),
    ];
    for (text, matched, unmatched) in cases {
        let pattern = pattern(text);
        for topic in matched {
            assert!(pattern.matches(topic), "{text} and {topic}");
        }
        for topic in unmatched {
            assert!(!pattern.matches(topic), "{text} and {topic}");
        }
    }
}

#[test]
fn reserved_topics_are_matched_only_by_patterns_that_begin_alike() {
    for text in [
        "user:*",
        "user:**",
        "user:4*",
        "user:42",
        "user:*2",
        "user:*4*2*",
    ] {
        assert!(pattern(text).matches("user:42"), "{text}");
    }
    for text in [
        "*",
        "**",
        "*:*",
        "*:42",
        "us**",
        "use*:42",
        "user*",
        "**user:**",
        "u*r:*2*",
        "presence:**",
    ] {
        assert!(!pattern(text).matches("user:42"), "{text}");
    }
    assert!(pattern("us**").matches("usual"));
    assert!(pattern("**").matches("a:user:42"));
}

#[test]
fn a_pattern_says_what_is_fixed_in_it() {
    let cases = [
        ("orders", true, "orders"),
        ("order:*", false, "order:"),
        ("*", false, ""),
        ("a*b**", false, "a"),
    ];
    for (text, literal, prefix) in cases {
        let pattern = pattern(text);
        assert_eq!(
            (
                pattern.as_str(),
                pattern.is_literal(),
                pattern.literal_prefix()
            ),
            (text, literal, prefix)
        );
        assert_eq!(pattern.to_string(), text);
    }
}

#[test]
fn a_pattern_keeps_the_rules_of_a_topic() {
    assert_eq!(Pattern::new(""), Err(TopicError::Empty));
    assert_eq!(
        Pattern::new("*\n"),
        Err(TopicError::ControlCharacter {
            character: '\n',
            offset: 1
        })
    );
    assert_eq!(
        Pattern::new(&"*".repeat(TOPIC_BYTES_MAX + 1)),
        Err(TopicError::TooLong { bytes: 1_025 })
    );
    assert!(pattern(&"*".repeat(TOPIC_BYTES_MAX)).matches("a:b"));
}

#[test]
fn a_pattern_covers_what_it_matches_every_topic_of() {
    let covered = [
        ("orders", "orders"),
        ("order:*", "order:7"),
        ("order:*", "order:7*"),
        ("order:**", "order:*"),
        ("order:**", "order:*:*"),
        ("**", "a*b**c"),
        ("*:**", "order:*"),
        ("a*b*c", "ab*b*c"),
        ("a**", "a***"),
        ("a***", "a**"),
        ("user:*", "user:42"),
        ("user:**", "user:4*:*"),
    ];
    let uncovered = [
        ("order:7", "order:*"),
        ("order:*", "order:**"),
        ("order:*", "order:*:*"),
        ("*", "a:b"),
        ("a*b*c", "a*c"),
        ("a*ba", "aba*"),
        ("ab*ba", "aba"),
        ("**", "user:42"),
        ("**", "user:*"),
        ("us**", "user:*"),
        ("*:**", "presence:*"),
        ("user:*", "*"),
    ];
    for (wide, narrow) in covered {
        assert!(
            pattern(wide).covers(&pattern(narrow)),
            "{wide} covers {narrow}"
        );
    }
    for (wide, narrow) in uncovered {
        assert!(
            !pattern(wide).covers(&pattern(narrow)),
            "{wide} does not cover {narrow}"
        );
    }
}

/// A matcher that backtracks needs longer than the universe has for one of these; here thousands are done in a test.
#[test]
fn hostile_patterns_cost_no_more_than_their_length() {
    let topic = "a".repeat(TOPIC_BYTES_MAX - 1) + "b";
    let patterns = [
        "*a".repeat(TOPIC_BYTES_MAX / 2 - 1) + "*",
        "**a".repeat(TOPIC_BYTES_MAX / 3 - 1) + "*c*",
        "*".to_owned() + &"a".repeat(TOPIC_BYTES_MAX - 4) + "*c*",
        "a*".repeat(TOPIC_BYTES_MAX / 2 - 1) + "c*",
        "*a**a".repeat(TOPIC_BYTES_MAX / 5 - 1) + "*:*b",
    ]
    .map(|text| pattern(&text));
    for _ in 0..1_000 {
        let matched = patterns.each_ref().map(|pattern| pattern.matches(&topic));
        assert_eq!(matched, [true, false, false, false, false]);
    }
    for _ in 0..1_000 {
        assert!(patterns.iter().all(|pattern| pattern.covers(pattern)));
    }
}

#[test]
fn the_longest_middle_fits_the_states() {
    let literals = "ab".repeat(TOPIC_BYTES_MAX / 2 - 1);
    let longest = pattern(&format!("*{literals}*"));
    assert_eq!(longest.as_str().len(), TOPIC_BYTES_MAX);
    assert!(longest.matches(&literals) && longest.matches(&format!("b{literals}a")));
    assert!(!longest.matches(&literals[1..]));
    for bytes in 60..70 {
        let literals = "a".repeat(bytes);
        let pattern = pattern(&format!("*{literals}*"));
        assert!(
            pattern.matches(&literals) && !pattern.matches(&literals[1..]),
            "{bytes}"
        );
    }
}

/// The glob as a regex, and the rule of reserved names beside it.
fn oracle(pattern: &str, topic: &str) -> bool {
    let mut regex = String::from(r"(?s)\A");
    let mut rest = pattern;
    while let Some(star) = rest.find('*') {
        regex += &regex::escape(&rest[..star]);
        let after = rest[star..].trim_start_matches('*');
        regex += if rest.len() - star - after.len() == 1 {
            "[^:/.]*"
        } else {
            ".*"
        };
        rest = after;
    }
    regex += &regex::escape(rest);
    regex += r"\z";
    let entitled = RESERVED_PREFIXES
        .iter()
        .all(|prefix| !topic.starts_with(prefix) || pattern.starts_with(prefix));
    entitled && Regex::new(&regex).expect("a regex").is_match(topic)
}

/// Patterns that often share parts with each other and with reserved names, some with more than a word of states.
fn patterns() -> impl Strategy<Value = String> {
    let tail = prop_oneof![4 => "[ab:/.é*]{0,12}", 1 => "([ab]{1,30}[:*é]){0,8}"];
    (prop_oneof![6 => Just(""), 1 => Just("user:"), 1 => Just("us"), 1 => Just("presence:"), 1 => Just("**er:")], tail)
        .prop_map(|(head, tail)| format!("{head}{tail}"))
        .prop_filter("a pattern is not empty", |text| !text.is_empty())
}

/// `pattern` with each run of stars replaced by the next of `parts`.
fn filled(pattern: &str, parts: &[String]) -> String {
    let mut parts = parts.iter().cycle();
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(star) = rest.find('*') {
        out += &rest[..star];
        out += parts.next().map_or("", |part| part.as_str());
        rest = rest[star..].trim_start_matches('*');
    }
    out + rest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn matching_agrees_with_regex(
        text in patterns(),
        unrelated in "(user:|us)?[ab:/.é]{0,12}",
        parts in prop::collection::vec("[abé]{0,4}[:/.]?|user:|er:a", 1..6),
    ) {
        let pattern = pattern(&text);
        for topic in [filled(&text, &parts), unrelated] {
            prop_assert_eq!(pattern.matches(&topic), oracle(&text, &topic), "{} and {}", text, topic);
        }
    }

    #[test]
    fn what_is_covered_matches_nothing_more(
        wide in patterns(),
        unrelated in patterns(),
        stars in prop::collection::vec("[abé]{0,3}|[ab:]?\\*{1,3}[ab/]?|user:|er:\\*", 1..6),
        parts in prop::collection::vec("[abé]{0,4}[:/.]?|user:|er:a", 1..6),
    ) {
        let wide_pattern = pattern(&wide);
        for narrow in [filled(&wide, &stars), unrelated].into_iter().filter(|text| !text.is_empty()) {
            let narrow_pattern = pattern(&narrow);
            let topic = filled(&narrow, &parts);
            if wide_pattern.covers(&narrow_pattern) && narrow_pattern.matches(&topic) {
                prop_assert!(wide_pattern.matches(&topic), "{} covers {}, not {}", wide, narrow, topic);
            }
            prop_assert!(narrow_pattern.covers(&narrow_pattern), "{} covers itself", narrow);
            // On a topic, covering and matching are one question.
            if !topic.is_empty() {
                prop_assert_eq!(wide_pattern.covers(&pattern(&topic)), wide_pattern.matches(&topic));
            }
        }
    }

    #[test]
    fn no_pattern_reaches_reserved_topics_by_its_stars(text in "[*:a-z]{0,3}\\*[*:a-z]{0,3}", name in "[a-z]{0,3}") {
        for prefix in RESERVED_PREFIXES {
            let topic = format!("{prefix}{name}");
            prop_assert!(is_reserved(&topic) && !pattern(&text).matches(&topic));
        }
    }
}
