//! The `identity` command.

fn main() {}
