//! A bar chart as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 310.0;

/// Hashes a second against lanes, with a line where the `bcrypt` crate is.
pub(crate) fn svg(title: &str, rates: &[f64], crate_rate: f64) -> String {
    let most = rates.iter().copied().fold(crate_rate, f64::max);
    let y = |rate: f64| BOTTOM - (BOTTOM - TOP) * rate / most;
    let step = (WIDTH - 2.0 * LEFT) / rates.len() as f64;
    let mut bars = String::new();
    for (index, rate) in rates.iter().enumerate() {
        let (x, middle) = (LEFT + step * (index as f64 + 0.15), LEFT + step * (index as f64 + 0.5));
        let _ = write!(
            bars,
            r##"
  <rect x="{x:.1}" y="{:.1}" width="{:.1}" height="{:.1}" fill="#3b6ea5"/>
  <text x="{middle:.1}" y="{:.1}">{rate:.0}</text>
  <text x="{middle:.1}" y="{:.1}">{}</text>"##,
            y(*rate),
            step * 0.7,
            BOTTOM - y(*rate),
            y(*rate) - 6.0,
            BOTTOM + 18.0,
            index + 1,
        );
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" text-anchor="middle">
  <rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>
  <text x="{:.1}" y="28" font-size="13">{title}</text>{bars}
  <line x1="{LEFT}" x2="{:.1}" y1="{line:.1}" y2="{line:.1}" stroke="#b03030" stroke-width="2" stroke-dasharray="6 4"/>
  <text x="{:.1}" y="{:.1}" fill="#b03030" text-anchor="end">bcrypt crate: {crate_rate:.1}</text>
  <text x="{:.1}" y="{:.1}">lanes in flight</text>
</svg>
"##,
        WIDTH / 2.0,
        WIDTH - LEFT,
        WIDTH - LEFT,
        y(crate_rate) - 6.0,
        WIDTH / 2.0,
        BOTTOM + 38.0,
        line = y(crate_rate),
    )
}
