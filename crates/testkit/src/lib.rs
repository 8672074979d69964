//! Conformance suites, fault injection and hostile samples for tests.
