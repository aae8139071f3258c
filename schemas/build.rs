//! Migrations are embedded when this crate is compiled, and a new one does not count as a change of its sources.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
