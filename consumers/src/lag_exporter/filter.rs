//! Which groups and topics are looked at.

use clap::Args;
use regex::Regex;

/// Patterns are anchored: they match whole names.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What to look at")]
pub(super) struct Filter {
    /// Only groups whose whole name matches.
    #[arg(long, env = "LAG_GROUPS", value_name = "REGEX", default_value = ".*", value_parser = whole)]
    groups: Regex,

    /// But not groups whose whole name matches.
    #[arg(long, env = "LAG_GROUPS_EXCEPT", value_name = "REGEX", value_parser = whole)]
    groups_except: Option<Regex>,

    /// Only topics whose whole name matches.
    #[arg(long, env = "LAG_TOPICS", value_name = "REGEX", default_value = ".*", value_parser = whole)]
    topics: Regex,

    /// But not topics whose whole name matches; by default those of Kafka itself and its tools.
    #[arg(long, env = "LAG_TOPICS_EXCEPT", value_name = "REGEX", default_value = "__.*", value_parser = whole)]
    topics_except: Option<Regex>,
}

impl Filter {
    pub(super) fn group(&self, name: &str) -> bool {
        passes(name, &self.groups, self.groups_except.as_ref())
    }

    pub(super) fn topic(&self, name: &str) -> bool {
        passes(name, &self.topics, self.topics_except.as_ref())
    }
}

fn passes(name: &str, only: &Regex, except: Option<&Regex>) -> bool {
    only.is_match(name) && !except.is_some_and(|except| except.is_match(name))
}

fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(groups: &str, except: Option<&str>) -> Filter {
        Filter {
            groups: whole(groups).unwrap(),
            groups_except: except.map(|pattern| whole(pattern).unwrap()),
            topics: whole(".*").unwrap(),
            topics_except: Some(whole("__.*").unwrap()),
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        let filter = filter("a|orders\\..*", None);

        assert!(filter.group("a") && filter.group("orders.payment"));
        assert!(!filter.group("abc") && !filter.group("my.orders.payment"));
    }

    #[test]
    fn what_is_excepted_stays_out_although_it_is_wanted() {
        let filter = filter("orders\\..*", Some(".*payment"));

        assert!(filter.group("orders.shipping"));
        assert!(!filter.group("orders.payment"));
        assert!(filter.topic("orders") && !filter.topic("__consumer_offsets"));
    }
}
