//! Rights as they are written in the configuration, a token or a webhook's answer, made into rights of a person.

use std::collections::HashMap;

use tidewire::core::topic::is_reserved;
use tidewire::{Pattern, Rights};

use crate::config::{self, Auth};

/// Stands for the subject in a pattern.
const USER: &str = "{user}";

/// Patterns to be given to somebody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grant {
    subscribe: Vec<Template>,
    publish: Vec<Template>,
    admin: bool,
}

/// A pattern, perhaps with `{user}` in it.
#[derive(Clone, Debug)]
enum Template {
    Pattern(Pattern),
    OfUser(String),
}

impl Template {
    fn new(text: &str) -> Result<Self, String> {
        // Checked with a name in the place of the user, so that a mistake shows at the start.
        let shown = Pattern::new(&text.replace(USER, "u"))
            .map_err(|error| format!("`{text}` is no pattern: {error}"))?;
        Ok(if text.contains(USER) {
            Self::OfUser(text.to_owned())
        } else {
            Self::Pattern(shown)
        })
    }

    fn of(&self, user: Option<&str>) -> Option<Pattern> {
        match self {
            Self::Pattern(pattern) => Some(pattern.clone()),
            // A subject with a star would become a pattern that reaches other users.
            Self::OfUser(text) => user
                .filter(|user| !user.is_empty() && !user.contains('*'))
                .map(|user| text.replace(USER, user))
                // And one who is called `user` would turn `{user}:**` into everybody's own topics.
                .filter(|pattern| is_reserved(pattern) == is_reserved(text))
                .and_then(|pattern| Pattern::new(&pattern).ok()),
        }
    }
}

impl Grant {
    /// Checks every pattern; `of` says in an error whose they are.
    ///
    /// # Errors
    /// If a pattern is not valid.
    pub(crate) fn new(of: &str, grant: &config::Grant) -> Result<Self, String> {
        let templates = |name: &str, texts: &[String]| {
            let template = |text: &String| {
                Template::new(text).map_err(|error| format!("{of}.{name}: {error}"))
            };
            texts.iter().map(template).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            subscribe: templates("subscribe", &grant.subscribe)?,
            publish: templates("publish", &grant.publish)?,
            admin: grant.admin,
        })
    }

    /// What it lets a person do.
    pub(crate) fn rights(&self, user: Option<&str>) -> Rights {
        let mut rights = Rights::default();
        self.add_to(&mut rights, user);
        rights
    }

    /// Adds what it lets a person do.
    pub(crate) fn add_to(&self, rights: &mut Rights, user: Option<&str>) {
        let of_user = |template: &Template| template.of(user);
        let subscribe: Vec<_> = self.subscribe.iter().filter_map(of_user).collect();
        rights.private.extend(subscribe.iter().cloned());
        rights.subscribe.extend(subscribe);
        rights
            .publish
            .extend(self.publish.iter().filter_map(of_user));
        rights.admin |= self.admin;
    }
}

/// The rights of roles, by name, and those that every user has.
pub(crate) struct Roles {
    user: Grant,
    named: HashMap<String, Grant>,
}

impl Roles {
    /// As configured.
    ///
    /// # Errors
    /// If a pattern is not valid, or a role is there twice.
    pub(crate) fn new(auth: &Auth) -> Result<Self, String> {
        let mut named = HashMap::new();
        for role in &auth.roles {
            let of = format!("auth.roles, `{}`", role.name);
            let grant = Grant::new(&of, &role.grant())?;
            if named.insert(role.name.clone(), grant).is_some() {
                return Err(format!("{of}: the name is there twice"));
            }
        }
        Ok(Self {
            user: Grant::new("auth.user", &auth.user)?,
            named,
        })
    }

    /// Adds what a user with these roles may do. A role that is not configured has no rights.
    pub(crate) fn add_to(&self, rights: &mut Rights, roles: &[String], user: Option<&str>) {
        self.user.add_to(rights, user);
        for grant in roles.iter().filter_map(|role| self.named.get(role)) {
            grant.add_to(rights, user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(subscribe: &[&str]) -> Grant {
        let grant = config::Grant {
            subscribe: subscribe.iter().map(ToString::to_string).collect(),
            ..config::Grant::default()
        };
        Grant::new("auth.user", &grant).expect("patterns")
    }

    #[test]
    fn the_user_stands_for_nobody_else() {
        let rights = grant(&["user:{user}", "room:{user}:*"]).rights(Some("42"));
        assert!(rights.may_read("user:42") && rights.may_read("room:42:a"));
        assert!(!rights.may_read("user:43") && !rights.may_read("user:4"));
    }

    #[test]
    fn a_subject_that_is_a_pattern_gets_nothing_by_it() {
        for user in ["*", "**", "4*", ""] {
            let rights = grant(&["user:{user}"]).rights(Some(user));
            assert!(rights.subscribe.is_empty(), "{user}");
        }
        assert!(grant(&["user:{user}"]).rights(None).subscribe.is_empty());
    }

    #[test]
    fn a_subject_that_is_a_reserved_name_gets_nothing_by_it() {
        for user in ["user", "notification", "connection", "presence"] {
            let rights = grant(&["{user}:**", "room:{user}"]).rights(Some(user));
            assert!(!rights.may_read(&format!("{user}:7")), "{user}");
            assert!(rights.may_read(&format!("room:{user}")), "{user}");
        }
    }

    #[test]
    fn a_bad_pattern_is_told_with_its_place() {
        let grant = config::Grant {
            publish: vec![String::new()],
            ..config::Grant::default()
        };
        let error = Grant::new("auth.user", &grant).expect_err("an empty pattern");
        assert!(error.starts_with("auth.user.publish: "), "{error}");
    }
}
