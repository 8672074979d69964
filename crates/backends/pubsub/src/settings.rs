//! What a lane's topic and subscriptions have to be like, and how those that are there differ.

use std::time::Duration;

use google_cloud_pubsub::model::{ExpirationPolicy, Subscription, Topic};
use google_cloud_wkt as wkt;

use crate::config::Config;

/// Pub/Sub says so of a subscription whose topic was deleted.
const DELETED: &str = "_deleted-topic_";

/// The subscription that a lane wants.
pub(crate) fn wanted(config: &Config, name: &str, topic: &str) -> Subscription {
    Subscription::new()
        .set_name(name)
        .set_topic(topic)
        .set_ack_deadline_seconds(seconds(config.ack_deadline))
        .set_message_retention_duration(retention(config))
        // Without a time to live it never expires. The default would delete a subscription, with all that waits, after
        // 31 days without readers.
        .set_expiration_policy(ExpirationPolicy::new())
        .set_enable_exactly_once_delivery(config.exactly_once)
}

/// How `found` differs from what a lane wants, in words; empty if it can be used as it is.
pub(crate) fn topic_differs(found: &Topic) -> Vec<String> {
    let mut differs = Vec::new();
    if found.schema_settings.is_some() {
        differs.push("it has a schema, which would refuse our messages".to_owned());
    }
    if !found.message_transforms.is_empty() {
        differs.push("it has message transforms, which would change our messages".to_owned());
    }
    differs
}

/// The same for a subscription.
pub(crate) fn subscription_differs(wanted: &Subscription, found: &Subscription) -> Vec<String> {
    let mut differs = unusable(found);
    if found.topic != wanted.topic && found.topic != DELETED {
        differs.push(format!("it belongs to {}, not to {}", found.topic, wanted.topic));
    }
    if found.ack_deadline_seconds != wanted.ack_deadline_seconds {
        let (is, want) = (found.ack_deadline_seconds, wanted.ack_deadline_seconds);
        differs.push(format!("its ack deadline is {is} s, not {want} s (--ack-deadline={want})"));
    }
    if let (Some(is), Some(want)) = (found.message_retention_duration, wanted.message_retention_duration)
        && is != want
    {
        let (is, want) = (is.seconds(), want.seconds());
        differs.push(format!("it keeps messages for {is} s, not {want} s (--message-retention-duration={want}s)"));
    }
    // Not set in an answer means the default of 31 days, except that emulators leave out what never expires.
    if found.expiration_policy.as_ref().is_some_and(|policy| policy.ttl.is_some()) {
        differs.push("it expires when nobody reads for a while (--expiration-period=never)".to_owned());
    }
    if found.enable_exactly_once_delivery != wanted.enable_exactly_once_delivery {
        let (is, flag) = if found.enable_exactly_once_delivery { ("on", "no-enable") } else { ("off", "enable") };
        differs.push(format!("exactly-once delivery is {is} (--{flag}-exactly-once-delivery)"));
    }
    if !found.filter.is_empty() {
        differs.push("it has a filter, which drops messages; filters cannot be removed, so delete it".to_owned());
    }
    if found.dead_letter_policy.is_some() {
        differs.push("it has a dead-letter policy (--clear-dead-letter-policy)".to_owned());
    }
    if !found.message_transforms.is_empty() {
        differs.push("it has message transforms, which would change our messages".to_owned());
    }
    differs
}

/// Why nobody can pull from `found`, in words; empty if that is possible.
pub(crate) fn unusable(found: &Subscription) -> Vec<String> {
    let mut reasons = Vec::new();
    if found.detached || found.topic == DELETED {
        reasons.push("its topic was deleted or it was detached, so nothing comes any more; delete it".to_owned());
    }
    let pushes = found.push_config.as_ref().is_some_and(|push| !push.push_endpoint.is_empty());
    if pushes || found.bigquery_config.is_some() || found.cloud_storage_config.is_some() {
        reasons.push("Pub/Sub itself delivers it elsewhere, so it cannot be pulled".to_owned());
    }
    reasons
}

fn seconds(span: Duration) -> i32 {
    i32::try_from(span.as_secs()).unwrap_or(i32::MAX)
}

fn retention(config: &Config) -> wkt::Duration {
    wkt::Duration::clamp(i64::try_from(config.retention.as_secs()).unwrap_or(i64::MAX), 0)
}

#[cfg(test)]
mod tests {
    use google_cloud_pubsub::model::{DeadLetterPolicy, PushConfig, SchemaSettings};
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        let options = json!({"project": "p", "emulator_host": "localhost:1"});
        Config::read(options.as_object().unwrap()).unwrap()
    }

    #[test]
    fn what_was_made_fits() {
        let wanted = wanted(&config(), "s", "t");
        assert_eq!(subscription_differs(&wanted, &wanted), Vec::<String>::new());
        assert_eq!(topic_differs(&Topic::new()), Vec::<String>::new());
    }

    #[test]
    fn every_setting_that_matters_is_compared() {
        let wanted = wanted(&config(), "s", "t");
        let like = || wanted.clone();
        let day = wkt::Duration::clamp(86_400, 0);
        for (found, says) in [
            (like().set_topic("other"), "belongs to other"),
            (like().set_topic(DELETED), "topic was deleted"),
            (like().set_detached(true), "detached"),
            (like().set_ack_deadline_seconds(10), "--ack-deadline=60"),
            (like().set_message_retention_duration(day), "--message-retention-duration=604800s"),
            (like().set_expiration_policy(ExpirationPolicy::new().set_ttl(day)), "--expiration-period=never"),
            (like().set_enable_exactly_once_delivery(true), "--no-enable-exactly-once-delivery"),
            (like().set_filter("attributes.x"), "filter"),
            (like().set_dead_letter_policy(DeadLetterPolicy::new()), "--clear-dead-letter-policy"),
            (like().set_push_config(PushConfig::new().set_push_endpoint("https://x")), "cannot be pulled"),
        ] {
            let differs = subscription_differs(&wanted, &found);
            assert!(differs.len() == 1 && differs[0].contains(says), "{says}: {differs:?}");
        }
        assert_eq!(topic_differs(&Topic::new().set_schema_settings(SchemaSettings::new())).len(), 1);
    }
}
