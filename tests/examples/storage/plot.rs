//! Lines on two logarithmic axes, as an SVG that is readable on light and dark pages.

use std::fmt::Write as _;

use crate::figures::Scale;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 650.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 390.0;
/// Between two labels at the lines' ends.
const LABEL: f64 = 17.0;

const STYLE: &str = "text{font:13px sans-serif;fill:#333}.grid{stroke:#ccc}\
    @media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}}";
/// Told apart on both grounds, also by the colour-blind.
const COLOURS: [&str; 7] = [
    "#0077bb", "#ee7733", "#009988", "#cc3311", "#33a5dd", "#ee3377", "#999999",
];

pub fn lines(scale: &Scale) -> String {
    let points = || scale.calls.values().flatten();
    let (x_min, x_max) = decades(points().map(|(x, _)| *x as f64));
    let (y_min, y_max) = decades(points().map(|(_, y)| *y));
    let x = |value: f64| LEFT + (RIGHT - LEFT) * (value.log10() - x_min) / (x_max - x_min);
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * (value.log10() - y_min) / (y_max - y_min);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
         <title>Instructions of each call, by the number of {}</title><style>{STYLE}</style>\n",
        scale.of
    );
    for exponent in x_min as i32..=x_max as i32 {
        let at = x(10f64.powi(exponent));
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} {TOP}V{BOTTOM}\"/><text x=\"{at:.1}\" y=\"{}\" \
             text-anchor=\"middle\">{}</text>",
            BOTTOM + 18.0,
            power(exponent)
        );
    }
    for exponent in y_min as i32..=y_max as i32 {
        let at = y(10f64.powi(exponent));
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            power(exponent)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"18\">instructions</text><text x=\"{}\" y=\"{}\" \
         text-anchor=\"middle\">{}</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 40.0,
        scale.of
    );
    let mut ends: Vec<_> = scale
        .calls
        .iter()
        .zip(COLOURS.into_iter().cycle())
        .filter_map(|((call, points), colour)| Some((y(points.last()?.1), *call, points, colour)))
        .collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = 0.0f64;
    for (end, call, points, colour) in ends {
        let path: Vec<_> = points
            .iter()
            .map(|(size, value)| format!("{:.1} {:.1}", x(*size as f64), y(*value)))
            .collect();
        let label = end.max(lowest + LABEL);
        lowest = label;
        let _ = writeln!(
            svg,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{}\" \
             y=\"{:.1}\" style=\"fill:{colour}\">{call}</text>",
            path.join("L"),
            RIGHT + 8.0,
            label + 4.0
        );
    }
    svg + "</svg>\n"
}

/// The exponents of ten around all values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        let exponent = value.max(1.0).log10();
        (min, max) = (min.min(exponent.floor()), max.max(exponent.ceil()));
    }
    match min < max {
        true => (min, max),
        false => (0.0, 1.0),
    }
}

fn power(exponent: i32) -> String {
    format!("10<tspan dy=\"-5\" font-size=\"9\">{exponent}</tspan>")
}
