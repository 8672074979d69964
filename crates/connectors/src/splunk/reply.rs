//! What an event collector's answers mean.
//!
//! Codes: <https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data/troubleshoot-http-event-collector>.

use serde::Deserialize;

/// What became of a request with events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Splunk has them; with the number under which it acknowledges them, if it does.
    Taken(Option<u64>),
    /// One event is refused, the one of that number if it is told, and all the others were not taken, either.
    Refused {
        /// Counted from 0.
        event: Option<usize>,
        /// Splunk's words.
        reason: String,
    },
    /// The same, for the index that it names.
    WrongIndex {
        /// Counted from 0.
        event: Option<usize>,
    },
    /// The request is larger than Splunk takes.
    TooLarge,
    /// Not now.
    Wait(String),
    /// A person has to change something.
    Mend(String),
}

/// An answer's body. Other keys may come with later versions.
#[derive(Deserialize)]
struct Body {
    code: u64,
    #[serde(default)]
    text: String,
    #[serde(default, rename = "ackId")]
    ack: Option<u64>,
    #[serde(default, rename = "invalid-event-number")]
    event: Option<usize>,
}

/// Most characters of Splunk's words that are repeated.
const MAX_WORDS: usize = 200;

/// Reads the answer to a request with events, for one who wants acknowledgement or not.
pub(crate) fn answer(status: u16, body: &[u8], acknowledge: bool) -> Answer {
    let Ok(body) = serde_json::from_slice::<Body>(body) else { return without_code(status) };
    let words: String = body.text.chars().take(MAX_WORDS).collect();
    let said = format!("{words} (code {}, status {status})", body.code);
    let (code, event) = (body.code, body.event);
    match (status, code) {
        // 24 and 25 tell that Splunk is nearly full; the events were taken all the same.
        (200..=299, 0 | 24 | 25) => match (acknowledge, body.ack) {
            (false, _) => Answer::Taken(None),
            (true, Some(number)) => Answer::Taken(Some(number)),
            (true, None) => Answer::Mend(
                "the token does not acknowledge; enable indexer acknowledgement for it (useACK), or set acknowledge = \
                 false"
                    .to_owned(),
            ),
        },
        (_, 6 | 12 | 13 | 15) => Answer::Refused { event, reason: said },
        (_, 7) => Answer::WrongIndex { event },
        (413, _) => Answer::TooLarge,
        (_, 8 | 9 | 18..=20 | 23 | 26 | 27) => Answer::Wait(said),
        (_, _) => match advice(code) {
            Some(advice) => Answer::Mend(format!("{said}: {advice}")),
            None => match without_code(status) {
                Answer::Mend(_) => Answer::Mend(said),
                Answer::Wait(_) => Answer::Wait(said),
                other => other,
            },
        },
    }
}

/// What a person is to do about a code.
fn advice(code: u64) -> Option<&'static str> {
    Some(match code {
        1 | 22 => "the token is disabled; enable it in Splunk, or give another one",
        2 | 3 => "the token did not get there; look at what stands between here and Splunk",
        4 | 21 => "Splunk does not know the token; look at token or token_file, and at whether all urls know it",
        5 => "the events did not get there; look at what stands between here and Splunk, or set gzip = false",
        10 | 11 => "the channel did not get there; look at what stands between here and Splunk",
        14 => "enable indexer acknowledgement for the token (useACK), or set acknowledge = false",
        16 => "an address in urls asks for a token in it; give token instead",
        _ => return None,
    })
}

/// What a status says that comes without a code: from something that stands before Splunk, or is none.
fn without_code(status: u16) -> Answer {
    match status {
        413 => Answer::TooLarge,
        401 | 403 => Answer::Mend(format!("status {status}: access is refused, and not by an event collector")),
        200..=299 => Answer::Wait(format!("status {status} without a code: not an answer of an event collector")),
        408 | 425 | 429 | 500..=599 => Answer::Wait(format!("status {status}")),
        _ => Answer::Mend(format!("status {status}: there is no event collector at this address")),
    }
}

/// Whether an answer to a question for acknowledgement says yes to `number`. Anything else is no.
pub(crate) fn is_acknowledged(body: &[u8], number: u64) -> bool {
    #[derive(Deserialize)]
    struct Acks {
        acks: std::collections::BTreeMap<String, bool>,
    }
    serde_json::from_slice::<Acks>(body).is_ok_and(|body| body.acks.get(&number.to_string()) == Some(&true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_meaning() {
        for (status, code, expected) in [
            (200, 0, "taken"),
            (403, 1, "mend"),
            (401, 2, "mend"),
            (401, 3, "mend"),
            (403, 4, "mend"),
            (400, 5, "mend"),
            (400, 6, "refused"),
            (400, 7, "index"),
            (500, 8, "wait"),
            (503, 9, "wait"),
            (400, 10, "mend"),
            (400, 11, "mend"),
            (400, 12, "refused"),
            (400, 13, "refused"),
            (400, 14, "mend"),
            (400, 15, "refused"),
            (400, 16, "mend"),
            (503, 18, "wait"),
            (503, 19, "wait"),
            (503, 20, "wait"),
            (400, 21, "mend"),
            (400, 22, "mend"),
            (503, 23, "wait"),
            (200, 24, "taken"),
            (200, 25, "taken"),
            (429, 26, "wait"),
            (429, 27, "wait"),
            (413, 99, "large"),
            (404, 404, "mend"),
            (503, 99, "wait"),
            (200, 99, "wait"),
            (400, 99, "mend"),
        ] {
            let body = format!(r#"{{"text":"words","code":{code},"ackId":7,"invalid-event-number":2}}"#);
            let answer = answer(status, body.as_bytes(), true);
            let kind = match &answer {
                Answer::Taken(Some(7)) => "taken",
                Answer::Refused { event: Some(2), .. } => "refused",
                Answer::WrongIndex { event: Some(2) } => "index",
                Answer::TooLarge => "large",
                Answer::Wait(_) => "wait",
                Answer::Mend(_) => "mend",
                _ => "other",
            };
            assert_eq!(kind, expected, "status {status} code {code}: {answer:?}");
        }
    }

    #[test]
    fn what_is_no_answer_of_a_collector() {
        for (status, body) in [(200, "<html>"), (200, "{}"), (200, "{\"code\":0"), (204, ""), (502, "bad gateway")] {
            assert!(matches!(answer(status, body.as_bytes(), false), Answer::Wait(_)), "{status} {body}");
        }
        for status in [301, 400, 401, 403, 404, 405] {
            assert!(matches!(answer(status, b"<html>", false), Answer::Mend(_)), "{status}");
        }
        assert_eq!(answer(413, b"<html>", false), Answer::TooLarge);
        assert_eq!(answer(200, br#"{"text":"Success","code":0}"#, false), Answer::Taken(None));
        let Answer::Mend(why) = answer(200, br#"{"text":"Success","code":0}"#, true) else { panic!("no number") };
        assert!(why.contains("useACK"), "{why}");
    }

    #[test]
    fn only_yes_is_yes() {
        assert!(is_acknowledged(br#"{"acks":{"0":false,"7":true}}"#, 7));
        for body in [r#"{"acks":{"7":false}}"#, r#"{"acks":{"70":true}}"#, r#"{"acks":[7]}"#, "", "true"] {
            assert!(!is_acknowledged(body.as_bytes(), 7), "{body}");
        }
    }
}
