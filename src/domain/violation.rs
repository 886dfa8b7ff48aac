//! What is wrong with a request, field by field.

/// One rule that one field breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path in the request message, such as `email`.
    pub field: &'static str,
    /// What the field must be, as a predicate that follows its name: "must not be empty".
    /// Never quotes the value that was sent.
    pub description: String,
}

/// Collects the violations of one request, so that all are reported at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// No violation yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `field` breaks the rule that `description` states.
    pub fn push(&mut self, field: &'static str, description: impl ToString) {
        self.0.push(FieldViolation { field, description: description.to_string() });
    }

    /// The value of `result`, or `None` after noting its error as a violation of `field`.
    pub fn check<T, E: ToString>(&mut self, field: &'static str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.push(field, error)).ok()
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was noted, in the order of noting.
    pub fn into_vec(self) -> Vec<FieldViolation> {
        self.0
    }
}
