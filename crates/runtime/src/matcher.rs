//! Conditions of the configuration, ready to be evaluated: patterns, and tests of values at a path.
//!
//! Routes of payloads and conditions on responses are written with the same words and hold in the same way.

use std::sync::OnceLock;

use globset::{Glob, GlobMatcher};
use serde_json::{Map, Value};

use crate::config::routes::{ResultPath, ResultTest};

/// Patterns of which one has to fit.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Pattern>);

/// A pattern whose automaton is made when it is first needed: that takes a good part of a millisecond, and a process that only
/// checks its configuration asks none.
#[derive(Clone, Debug)]
struct Pattern {
    glob: Glob,
    matcher: OnceLock<GlobMatcher>,
}

impl Pattern {
    fn matcher(&self) -> &GlobMatcher {
        self.matcher.get_or_init(|| self.glob.compile_matcher())
    }
}

impl Patterns {
    /// Reads them.
    ///
    /// # Errors
    /// A sentence about the first that is broken.
    pub fn compile(texts: &[String]) -> Result<Self, String> {
        let pattern = |text: &String| Glob::new(text).map(|glob| Pattern { glob, matcher: OnceLock::new() });
        texts.iter().map(pattern).collect::<Result<_, _>>().map(Self).map_err(|e| e.to_string())
    }

    /// Makes all of them ready to be asked, so that the processes that are forked from this one need not.
    pub fn prepare(&self) {
        self.0.iter().for_each(|pattern| {
            pattern.matcher();
        });
    }

    /// There are none, so nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them fits `text`; none fits what is not there.
    pub fn fit(&self, text: Option<&str>) -> bool {
        text.is_some_and(|text| self.0.iter().any(|pattern| pattern.matcher().is_match(text)))
    }

    /// There are none, or one of them fits.
    pub fn allow(&self, text: Option<&str>) -> bool {
        self.is_empty() || self.fit(text)
    }
}

/// A test of the values at a path.
#[derive(Clone, Debug)]
pub struct Test {
    path: ResultPath,
    expect: Expect,
}

#[derive(Clone, Debug)]
enum Expect {
    Something,
    Equals(Value),
    Matches(Patterns),
}

impl Test {
    /// Compiles it.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn compile(test: &ResultTest) -> Result<Self, String> {
        let expect = match (&test.equals, test.matches.is_empty()) {
            (None, true) => Expect::Something,
            (Some(value), true) => Expect::Equals(value.clone()),
            (None, false) => Expect::Matches(Patterns::compile(&test.matches)?),
            (Some(_), false) => {
                return Err(format!("the test of {} has both `equals` and `matches`; give one", test.path));
            }
        };
        Ok(Self { path: test.path.clone(), expect })
    }

    /// As [`Patterns::prepare`].
    pub fn prepare(&self) {
        if let Expect::Matches(patterns) = &self.expect {
            patterns.prepare();
        }
    }

    /// The first member of its path.
    pub fn first(&self) -> &str {
        self.path.worker()
    }

    /// Whether a value at the path is as it should be.
    pub fn holds(&self, members: &Map<String, Value>) -> bool {
        self.path.select(members).into_iter().any(|value| match &self.expect {
            Expect::Something => !value.is_null() && *value != Value::Bool(false),
            Expect::Equals(wanted) => value == wanted,
            Expect::Matches(patterns) => patterns.fit(value.as_str()),
        })
    }
}
