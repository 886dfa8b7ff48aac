//! Pages: how much of a list is returned at once.

/// The most entries of a page: 1 to 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(u16);

/// The number is below 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must not be negative")]
pub struct NegativePageSize;

impl PageSize {
    /// What a caller gets who asks for no size.
    pub const DEFAULT: Self = Self(50);
    /// What a caller gets at most, whatever is asked for.
    pub const MAX: Self = Self(1_000);

    /// The size that `requested` asks for: 0 leaves it to the service, and what is too large is cut.
    ///
    /// # Errors
    /// [`NegativePageSize`].
    pub fn requested(requested: i32) -> Result<Self, NegativePageSize> {
        match u32::try_from(requested) {
            Ok(0) => Ok(Self::DEFAULT),
            Ok(size) => Ok(u16::try_from(size).map_or(Self::MAX, |size| Self(size.min(Self::MAX.0)))),
            Err(_) => Err(NegativePageSize),
        }
    }

    /// The size as a number of entries.
    pub fn entries(self) -> usize {
        usize::from(self.0)
    }
}

/// Which end of a list comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// What was created last.
    #[default]
    NewestFirst,
    /// What was created first.
    OldestFirst,
}

/// Some entries of a list, and where the next ones begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in the list's order.
    pub entries: Vec<T>,
    /// Gets the next page; `None` on the last one.
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_taken_cut_or_refused() {
        for (requested, entries) in [(0, 50), (1, 1), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
            assert_eq!(PageSize::requested(requested).unwrap().entries(), entries);
        }
        for requested in [-1, i32::MIN] {
            assert_eq!(PageSize::requested(requested), Err(NegativePageSize));
        }
    }
}
