//! What an operator says of tasks while the server runs: which of them are dropped, and what share
//! applications and namespaces have of what is handed out. A file in TOML; what it does not know it
//! refuses.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroU32;

use forebay_domain::share::{Share, WEIGHT_MAX};
use serde::Deserialize;
use toml::Spanned;

/// Rules of each kind.
pub const RULES_MAX: usize = 1_000;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    drops: Vec<DropRule>,
    namespaces: HashMap<String, BTreeMap<String, Share>>,
    applications: HashMap<String, NonZeroU32>,
}

/// Tasks for which all holds that is said are dropped. Something is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct DropRule {
    application: Option<String>,
    namespace: Option<String>,
    task: Option<String>,
}

/// Why a text is no rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRules {
    /// Counted from 1.
    pub line: Option<usize>,
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    drop: Vec<Spanned<DropRule>>,
    #[serde(default)]
    namespace: Vec<Spanned<Namespace>>,
    #[serde(default)]
    application: Vec<Spanned<Application>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Namespace {
    application: String,
    name: String,
    weight: Option<u32>,
    held_max: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Application {
    name: String,
    weight: u32,
}

impl Rules {
    /// What a file says.
    ///
    /// # Errors
    /// If it is no TOML, has a key or value that means nothing, or says two things of one.
    pub fn parse(text: &str) -> Result<Rules, BadRules> {
        let file: File = toml::from_str(text).map_err(|error| BadRules {
            line: error.span().and_then(|span| line_of(text, span.start)),
            why: error.message().to_owned(),
        })?;
        for (kind, rules) in
            [("drop", file.drop.len()), ("namespace", file.namespace.len()), ("application", file.application.len())]
        {
            if rules > RULES_MAX {
                return Err(BadRules { line: None, why: format!("there are {rules} {kind} rules, over {RULES_MAX}") });
            }
        }
        let mut rules = Rules::default();
        for rule in file.drop {
            let line = line_of(text, rule.span().start);
            let rule = rule.into_inner();
            if rule.application.is_none() && rule.namespace.is_none() && rule.task.is_none() {
                let why = "a drop rule says an application, a namespace or a task, or more of them".to_owned();
                return Err(BadRules { line, why });
            }
            rules.drops.push(rule);
        }
        for said in file.namespace {
            let line = line_of(text, said.span().start);
            let Namespace { application, name, weight, held_max } = said.into_inner();
            let share = Share { weight: weight_of(weight.unwrap_or(1), line)?, held_max };
            let of_application = rules.namespaces.entry(application).or_default();
            if of_application.insert(name.clone(), share).is_some() {
                return Err(BadRules { line, why: format!("namespace {name:?} was said before") });
            }
        }
        for said in file.application {
            let line = line_of(text, said.span().start);
            let Application { name, weight } = said.into_inner();
            let weight = weight_of(weight, line)?;
            if rules.applications.insert(name.clone(), weight).is_some() {
                return Err(BadRules { line, why: format!("application {name:?} was said before") });
            }
        }
        Ok(rules)
    }

    /// Whether any task is dropped.
    pub(crate) fn drop_any(&self) -> bool {
        !self.drops.is_empty()
    }

    /// Whether such a task is dropped.
    pub(crate) fn drop(&self, application: &str, namespace: &str, task: &str) -> bool {
        let is = |said: &Option<String>, name: &str| said.as_deref().is_none_or(|said| said == name);
        let mut rules = self.drops.iter();
        rules.any(|rule| is(&rule.application, application) && is(&rule.namespace, namespace) && is(&rule.task, task))
    }

    /// What of an application is dropped whatever its name: all of it (`None`), or these namespaces.
    pub(crate) fn dropped_whole(&self, application: &str) -> impl Iterator<Item = Option<&str>> {
        let whole = self.drops.iter().filter(move |rule| {
            rule.task.is_none() && rule.application.as_deref().is_none_or(|said| said == application)
        });
        whole.map(|rule| rule.namespace.as_deref())
    }

    /// The shares of an application's namespaces, as far as they are said.
    pub(crate) fn shares(&self, application: &str) -> impl Iterator<Item = (&str, Share)> {
        let said = self.namespaces.get(application).into_iter().flatten();
        said.map(|(name, share)| (name.as_str(), *share))
    }

    /// How often an application's turn comes, beside the others.
    pub(crate) fn weight(&self, application: &str) -> NonZeroU32 {
        self.applications.get(application).copied().unwrap_or(NonZeroU32::MIN)
    }
}

fn weight_of(weight: u32, line: Option<usize>) -> Result<NonZeroU32, BadRules> {
    let weight = NonZeroU32::new(weight).filter(|weight| weight.get() <= WEIGHT_MAX);
    weight.ok_or_else(|| BadRules { line, why: format!("a weight is 1 to {WEIGHT_MAX}") })
}

fn line_of(text: &str, place: usize) -> Option<usize> {
    Some(text.get(..place)?.matches('\n').count() + 1)
}

impl fmt::Display for BadRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.why),
            None => self.why.fmt(f),
        }
    }
}

impl std::error::Error for BadRules {}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
        [[drop]]
        task = "spam"
        [[drop]]
        application = "shop"
        namespace = "mail"
        [[drop]]
        namespace = "old"
        task = "send"

        [[namespace]]
        application = "shop"
        name = "orders"
        weight = 3
        held_max = 10
        [[namespace]]
        application = "shop"
        name = "mail"

        [[application]]
        name = "shop"
        weight = 2
    "#;

    #[test]
    fn a_task_is_dropped_if_all_holds_that_a_rule_says() {
        let rules = Rules::parse(RULES).unwrap();
        for (application, namespace, task, dropped) in [
            ("any", "any", "spam", true),
            ("shop", "mail", "send", true),
            ("shop", "orders", "send", false),
            ("other", "mail", "send", false),
            ("other", "old", "send", true),
            ("other", "old", "keep", false),
        ] {
            assert_eq!(rules.drop(application, namespace, task), dropped, "{application} {namespace} {task}");
        }
        assert_eq!(rules.dropped_whole("shop").collect::<Vec<_>>(), [Some("mail")]);
        assert_eq!(rules.dropped_whole("other").count(), 0);
        assert!(rules.drop_any() && !Rules::parse("").unwrap().drop_any());
    }

    #[test]
    fn what_is_not_said_weighs_1_and_has_no_bound() {
        let rules = Rules::parse(RULES).unwrap();
        let orders = Share { weight: NonZeroU32::new(3).unwrap(), held_max: Some(10) };
        assert_eq!(rules.shares("shop").collect::<Vec<_>>(), [("mail", Share::default()), ("orders", orders)]);
        assert_eq!(rules.shares("other").count(), 0);
        assert_eq!((rules.weight("shop").get(), rules.weight("other").get()), (2, 1));
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_line() {
        for (text, line, why) in [
            ("[[drop]]\ntask = \"a\"\n[[drop]]\ntsk = \"b\"", 4, "unknown field `tsk`"),
            ("\n[[drop]]\n", 2, "a drop rule says"),
            ("[[drops]]", 1, "unknown field `drops`"),
            ("[[namespace]]\nname = \"a\"\n", 1, "missing field `application`"),
            ("[[namespace]]\napplication = \"a\"\nname = \"b\"\nweight = 0", 1, "a weight is 1 to 1000"),
            ("[[application]]\nname = \"b\"\nweight = 1001", 1, "a weight is 1 to 1000"),
            ("[[application]]\nname = \"b\"\nweight = 2\n[[application]]\nname = \"b\"\nweight = 2", 4, "said before"),
            ("[[namespace]]\napplication = \"a\"\nname = \"b\"\nheld_max = -1", 4, "invalid value"),
            ("what = [", 1, ""),
        ] {
            let bad = Rules::parse(text).unwrap_err();
            assert_eq!(bad.line, Some(line), "{text}: {bad}");
            assert!(bad.to_string().contains(why), "{text}: {bad}");
        }
    }
}
