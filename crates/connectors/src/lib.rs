//! Where responses go: standard output, files.
