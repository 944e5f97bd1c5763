//! `docs/errors.md` lists every problem code, as it is, and none that there is not.

use std::collections::BTreeSet;

use tidewire::problem::Code;

const PAGE: &str = include_str!("../../../../docs/errors.md");

#[test]
fn the_page_of_errors_and_the_program_agree() {
    let (_, table) = PAGE.split_once("| code |").expect("the table of codes");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: Vec<Vec<&str>> = rows
        .map(|row| row.split('|').map(str::trim).collect())
        .collect();
    for row in &rows {
        let [code, status, meaning, advice, ""] = row[..] else {
            panic!("not four columns: {row:?}")
        };
        let code = code.trim_end_matches('`');
        let known = Code::ALL.iter().find(|known| known.as_str() == code);
        let known = known.unwrap_or_else(|| panic!("`{code}` is on the page and nowhere else"));
        assert_eq!(status, known.status().as_str(), "`{code}`");
        assert!(
            meaning.starts_with(known.title()),
            "`{code}` means: {}",
            known.title()
        );
        assert!(advice.len() > 10, "`{code}`: what to do?");
    }
    let on_page: BTreeSet<_> = rows
        .iter()
        .map(|row| row[0].trim_end_matches('`'))
        .collect();
    let codes: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(on_page.len(), rows.len(), "a code is on the page twice");
    assert_eq!(
        codes.difference(&on_page).collect::<Vec<_>>(),
        [&""; 0],
        "missing on the page"
    );
}
