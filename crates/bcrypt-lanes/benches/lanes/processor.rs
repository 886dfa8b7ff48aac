//! Which processor this is, and what may be expected of it.

use std::fmt;

/// The processor, as far as it matters here.
pub(crate) struct Processor {
    name: String,
    /// Loads that a core begins in one cycle, which bounds what interleaving can gain.
    pub(crate) loads_per_cycle: u32,
}

impl Processor {
    /// From `/proc/cpuinfo`. What is not known to be wider counts as two loads wide.
    pub(crate) fn of_this_machine() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
            line.and_then(|line| line.split(':').nth(1)).unwrap_or("").trim().to_owned()
        };
        let number = |name: &str| field(name).parse().unwrap_or(0);
        let (vendor, family, model) = (field("vendor_id"), number("cpu family"), number("model"));
        let name = format!("{} (family {family}, model {model})", field("model name"));
        Self { name, loads_per_cycle: loads_per_cycle(&vendor, family, model) }
    }
}

/// Zen 3 and later begin three loads a cycle or more (families 25 and 26), as Golden Cove and what
/// came after it does; earlier ones begin two.
fn loads_per_cycle(vendor: &str, family: u32, model: u32) -> u32 {
    const GOLDEN_COVE_AND_LATER: [u32; 14] =
        [0x8f, 0x97, 0x9a, 0xaa, 0xac, 0xad, 0xae, 0xb5, 0xb7, 0xba, 0xbd, 0xbf, 0xc5, 0xcf];
    match (vendor, family) {
        ("AuthenticAMD", 25..) => 3,
        ("GenuineIntel", 6) if GOLDEN_COVE_AND_LATER.contains(&model) => 3,
        _ => 2,
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} loads a cycle", self.name, self.loads_per_cycle)
    }
}
