//! The stoq command.

fn main() {}
