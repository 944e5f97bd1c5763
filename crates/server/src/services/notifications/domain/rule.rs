//! Rules: which domain events become notifications, and with which texts.

use std::fmt;

use serde_json::Value;

use super::NewNotification;

/// What becomes of the domain events of one type. Texts may have `{name}` and `{name.name}`, which stand for a member of
/// the event's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Rule {
    /// The type of the domain events.
    pub(in super::super) on: String,
    pub(in super::super) recipient: String,
    pub(in super::super) kind: String,
    pub(in super::super) title: String,
    pub(in super::super) body: Option<String>,
    pub(in super::super) link: Option<String>,
}

/// A domain event from which a rule can't make a notification, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct RuleError(pub(in super::super) String);

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Rule {
    /// What tells this rule from the others, whatever its place among them and its texts: a node with an older configuration
    /// may have applied it to the same event.
    pub(in super::super) fn key(&self) -> String {
        [&self.on, &self.recipient, &self.kind]
            .map(String::as_str)
            .join("\0")
    }

    /// The notification of a domain event, whose data it carries.
    pub(in super::super) fn apply(&self, data: &Value) -> Result<NewNotification, RuleError> {
        let optional =
            |template: &Option<String>| template.as_ref().map(|text| fill(text, data)).transpose();
        let made = NewNotification {
            recipient_id: fill(&self.recipient, data)?,
            kind: fill(&self.kind, data)?,
            title: fill(&self.title, data)?,
            body: optional(&self.body)?,
            link: optional(&self.link)?,
            data: Some(data.clone()),
        };
        made.validate().map_err(|(_, why)| RuleError(why))?;
        Ok(made)
    }
}

/// Whether a text of a rule can be filled at all.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_template(template: &str) -> Result<(), String> {
    each_place(template, |_, _| Ok(())).map_err(|RuleError(why)| why)
}

/// Puts members of the data in their places. `{{` stands for a brace.
fn fill(template: &str, data: &Value) -> Result<String, RuleError> {
    let mut out = String::with_capacity(template.len());
    each_place(template, |before, name| {
        out.push_str(before);
        let Some(name) = name else { return Ok(()) };
        let value = name
            .split('.')
            .try_fold(data, |value, part| value.get(part));
        match value {
            Some(Value::String(text)) => out.push_str(text),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => out.push_str(&value.to_string()),
            _ => {
                return Err(RuleError(format!(
                    "the event has no text or number `{name}`"
                )));
            }
        }
        Ok(())
    })?;
    Ok(out)
}

/// Goes through a template: a piece of text, and the name whose member comes after it, if one does.
fn each_place(
    template: &str,
    mut take: impl FnMut(&str, Option<&str>) -> Result<(), RuleError>,
) -> Result<(), RuleError> {
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        if let Some(after) = rest[at + 1..].strip_prefix('{') {
            take(&rest[..=at], None)?;
            rest = after;
            continue;
        }
        let Some((name, after)) = rest[at + 1..].split_once('}') else {
            return Err(RuleError(format!(
                "a text whose braces are closed: `{template}` has one that is not; `{{{{` stands for a brace"
            )));
        };
        if name
            .split('.')
            .any(|part| part.is_empty() || part.contains('{'))
        {
            return Err(RuleError(format!(
                "a text whose braces have a member's name, `{{name}}` or `{{name.name}}`: `{{{name}}}` has none"
            )));
        }
        take(&rest[..at], Some(name))?;
        rest = after;
    }
    take(rest, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_put_in_their_places() {
        let data =
            json!({"story": {"id": 7, "title": "Cut {corners}"}, "by": "Ann", "urgent": true});
        let filled = |template| fill(template, &data).map_err(|error| error.0);
        assert_eq!(
            filled("{by}: {story.title} ({story.id}, {urgent})"),
            Ok("Ann: Cut {corners} (7, true)".into())
        );
        assert_eq!(filled("plain {{x}"), Ok("plain {x}".into()));
        for bad in ["{nobody}", "{story}", "{story.x}", "{by"] {
            assert!(filled(bad).is_err(), "{bad}");
        }
        for good in ["", "plain", "{a}", "{a.b} {{ }", "{a b}"] {
            assert_eq!(check_template(good), Ok(()), "{good}");
        }
        for bad in ["{", "{a", "{}", "{a.}", "{a{b}"] {
            assert!(check_template(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_without_a_recipient_makes_no_notification() {
        let rule = Rule {
            on: "story.assigned".into(),
            recipient: "{assignee}".into(),
            kind: "story_assigned".into(),
            title: "New story".into(),
            body: None,
            link: Some("/stories/{id}".into()),
        };
        let made = rule
            .apply(&json!({"assignee": "42", "id": 7}))
            .expect("made");
        assert_eq!(
            (made.recipient_id.as_str(), made.link.as_deref()),
            ("42", Some("/stories/7"))
        );
        let renamed = Rule {
            title: "Another title".into(),
            ..rule.clone()
        };
        let to_another = Rule {
            recipient: "{by}".into(),
            ..rule.clone()
        };
        assert_eq!(rule.key(), renamed.key());
        assert_ne!(rule.key(), to_another.key());
        assert!(rule.apply(&json!({"assignee": "", "id": 7})).is_err());
        assert!(rule.apply(&json!({"id": 7})).is_err());
    }
}
