//! A picture of the figures: for each workload and store one panel with bars of steps a second by
//! concurrency, the limit as an outline behind each. SVG by hand: it is a few rectangles.

use std::fmt::Write as _;

use crate::compare::Row;

const PANEL_WIDTH: f64 = 360.0;
const PANEL_HEIGHT: f64 = 240.0;
const MARGIN: f64 = 48.0;
const BAR_SHARE: f64 = 0.6;

/// Draws the rows.
pub(crate) fn draw(rows: &[Row], caption: &str) -> String {
    let mut panels: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let title = format!("{} on {}", row.workload, row.store);
        match panels.iter_mut().find(|(other, _)| *other == title) {
            Some((_, members)) => members.push(row),
            None => panels.push((title, vec![row])),
        }
    }
    let columns = panels.len().clamp(1, 2);
    let lines = panels.len().div_ceil(columns).max(1);
    let (width, height) = (columns as f64 * PANEL_WIDTH, lines as f64 * PANEL_HEIGHT + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (place, (title, members)) in panels.iter().enumerate() {
        let left = (place % columns) as f64 * PANEL_WIDTH;
        let top = (place / columns) as f64 * PANEL_HEIGHT;
        panel(&mut svg, left, top, title, members);
    }
    svg += &text(MARGIN, height - 16.0, "start", "#555555", caption);
    svg + "</svg>\n"
}

fn panel(svg: &mut String, left: f64, top: f64, title: &str, rows: &[&Row]) {
    let most = rows
        .iter()
        .map(|row| row.steps_per_second.max(row.limit_steps_per_second))
        .fold(1.0, f64::max);
    let (floor, full) = (top + PANEL_HEIGHT - 40.0, PANEL_HEIGHT - 100.0);
    *svg += &text(left + MARGIN, top + 24.0, "start", "#000000", &format!("{title}, steps/s"));
    let slot = (PANEL_WIDTH - 2.0 * MARGIN) / rows.len().max(1) as f64;
    for (place, row) in rows.iter().enumerate() {
        let x = left + MARGIN + place as f64 * slot + slot * (1.0 - BAR_SHARE) / 2.0;
        let bar = slot * BAR_SHARE;
        let middle = x + bar / 2.0;
        let high = |value: f64| value / most * full;
        let limit = high(row.limit_steps_per_second);
        let mine = high(row.steps_per_second);
        let drawn = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{limit:.1}\" \
             fill=\"none\" stroke=\"#999999\" stroke-dasharray=\"3 2\"/>\n\
             <rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{mine:.1}\" \
             fill=\"#3b6ea5\"/>\n",
            floor - limit,
            floor - mine,
        );
        drawn.expect("a string takes all that is written to it");
        let figure = format!("{:.0}", row.steps_per_second);
        *svg += &text(middle, floor - mine.max(limit) - 4.0, "middle", "#000000", &figure);
        let name = row.concurrency.to_string();
        *svg += &text(middle, floor + 14.0, "middle", "#000000", &name);
        let ratio = format!("{:.2} of limit", row.ratio_to_limit);
        *svg += &text(middle, floor + 27.0, "middle", "#777777", &ratio);
    }
}

fn text(x: f64, y: f64, anchor: &str, color: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{words}</text>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_break_the_picture() {
        let svg = draw(&[], "a <b> & c");
        assert!(svg.contains("a &lt;b&gt; &amp; c"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
