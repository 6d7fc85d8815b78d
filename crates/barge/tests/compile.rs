//! What the derives refuse: each message names the field and says what to do. After a change of wording, look at what
//! `TRYBUILD=overwrite` writes before keeping it.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile/*.rs");
}
