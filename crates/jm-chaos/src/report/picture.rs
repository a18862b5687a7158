//! The timeline as a picture: throughput, backlog, and when each fault began.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, anyhow};
use plotters::{
    backend::SVGBackend,
    chart::ChartBuilder,
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    element::PathElement,
    series::LineSeries,
    style::{BLACK, BLUE, Color, RED, RGBColor, ShapeStyle, WHITE},
};

use super::timeline::Second;
use crate::{checker::Verdict, history::FaultKind};

const SIZE: (u32, u32) = (1_400, 900);
/// Of throughput and of backlog; the faults take the rest.
const HEIGHT: u32 = 260;
const GREEN: RGBColor = RGBColor(0, 130, 60);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the picture as SVG.
pub fn draw(verdict: &Verdict, file: &Path) -> Result<()> {
    drawn(verdict, file).map_err(|error| anyhow!("could not draw {}: {error}", file.display()))
}

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn drawn(verdict: &Verdict, file: &Path) -> Outcome<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (throughput, rest) = root.split_vertically(HEIGHT);
    let (backlog, faults) = rest.split_vertically(HEIGHT);
    let seconds = &verdict.timeline.seconds;
    lines(
        &throughput,
        &format!("seed {}: messages a second", verdict.seed),
        seconds,
        &[
            ("confirmed to publishers", BLUE, |second| second.confirmed),
            ("done by handlers", GREEN, |second| second.done),
        ],
    )?;
    lines(&backlog, "messages waiting in all queues", seconds, &[("waiting", RED, |second| second.waiting)])?;
    ticks(&faults, verdict, seconds.len())?;
    root.present()?;
    Ok(())
}

type Curve = (&'static str, RGBColor, fn(&Second) -> u64);

fn lines(area: &Area<'_>, title: &str, seconds: &[Second], curves: &[Curve]) -> Outcome<()> {
    let most = curves.iter().flat_map(|(.., value)| seconds.iter().map(value)).max().unwrap_or(0).max(1);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin_right(20)
        .x_label_area_size(25)
        .y_label_area_size(190)
        .build_cartesian_2d(0..seconds.len().max(1), 0..most + most / 10)?;
    chart.configure_mesh().light_line_style(WHITE).draw()?;
    for &(label, color, value) in curves {
        let points = seconds.iter().enumerate().map(|(second, counts)| (second, value(counts)));
        chart
            .draw_series(LineSeries::new(points, color))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(())
}

/// A row for each kind of fault, a tick for each fault.
fn ticks(area: &Area<'_>, verdict: &Verdict, seconds: usize) -> Outcome<()> {
    let mut rows = BTreeMap::<FaultKind, usize>::new();
    for (_, kind) in &verdict.timeline.faults {
        let next = rows.len();
        rows.entry(*kind).or_insert(next);
    }
    let labels: BTreeMap<usize, &str> = rows.iter().map(|(kind, &row)| (row, kind.label())).collect();
    #[expect(clippy::cast_precision_loss, reason = "some hundred seconds and some twenty rows")]
    let (width, height) = (seconds.max(1) as f64, rows.len() as f64);
    let mut chart = ChartBuilder::on(area)
        .caption("faults", ("sans-serif", 20))
        .margin_right(20)
        .x_label_area_size(30)
        .y_label_area_size(190)
        .build_cartesian_2d(0.0..width, -0.5..height.max(1.0))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("seconds")
        .y_labels(rows.len().max(1) + 1)
        .y_label_formatter(&|row| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a row's number")]
            let row = row.round().max(0.0) as usize;
            labels.get(&row).copied().unwrap_or_default().to_owned()
        })
        .draw()?;
    let style = ShapeStyle { color: RED.to_rgba(), filled: false, stroke_width: 1 };
    for &(at, kind) in &verdict.timeline.faults {
        #[expect(clippy::cast_precision_loss, reason = "some twenty rows")]
        let row = rows[&kind] as f64;
        chart.draw_series([PathElement::new([(at, row - 0.3), (at, row + 0.3)], style)])?;
    }
    Ok(())
}
