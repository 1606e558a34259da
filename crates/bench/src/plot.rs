//! Curves as SVG: latencies over percentiles, deliveries over time.
//!
//! In: a report. Out: a file with one chart for each of both, where there is something to draw.
//! The axis of percentiles is by nines, so that the tail has as much room as the rest.

use std::path::Path;

use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::error::BenchError;
use super::report::Report;

/// Width and height of the whole.
const SIZE: (u32, u32) = (900, 800);
/// Points of a curve of percentiles.
const STEPS: u32 = 200;
/// How many nines the axis goes to: 99.99 %.
const NINES_MAX: f64 = 4.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Fault = Box<dyn std::error::Error>;

/// Writes the curves.
///
/// # Errors
/// [`BenchError::Plot`].
pub fn write(path: &Path, report: &Report) -> Result<(), BenchError> {
    let fault = |text: String| BenchError::Plot {
        path: path.to_owned(),
        text,
    };
    let svg = svg(report).map_err(|error| fault(error.to_string()))?;
    std::fs::write(path, svg).map_err(|error| fault(error.to_string()))
}

fn svg(report: &Report) -> Result<String, Fault> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(&report.title(), ("sans-serif", 18))?;
        let (upper, lower) = root.split_vertically(SIZE.1 / 2);
        draw_latencies(&upper, report.latencies())?;
        draw_throughput(&lower, report.deliveries_per_second())?;
        root.present()?;
    }
    Ok(text)
}

fn draw_latencies(
    area: &Area<'_>,
    latencies: &[(&'static str, Histogram<u64>)],
) -> Result<(), Fault> {
    let recorded = latencies
        .iter()
        .filter(|(_, histogram)| !histogram.is_empty());
    let recorded: Vec<_> = recorded.collect();
    let longest = recorded.iter().map(|(_, histogram)| histogram.max()).max();
    let Some(longest) = longest else {
        return Ok(());
    };
    let top = (longest as f64 / 1_000.0).max(0.1) * 1.05;
    let mut chart = chart(area, "latency in ms by percentile", NINES_MAX, top)?;
    // In f32, because 99.9 in f64 would be printed with all the digits of its inexactness.
    let percentile = |nines: &f64| format!("{} %", (100.0 - 10_f64.powf(2.0 - nines)) as f32);
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_labels(5)
        .x_label_formatter(&percentile)
        .draw()?;
    for (index, (name, histogram)) in recorded.into_iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let points = (0..=STEPS).map(|step| {
            let nines = NINES_MAX * f64::from(step) / f64::from(STEPS);
            let quantile = 1.0 - 10_f64.powf(-nines);
            let us = histogram.value_at_quantile(quantile);
            (nines, us as f64 / 1_000.0)
        });
        chart
            .draw_series(LineSeries::new(points, colour))?
            .label(name.replace('_', " "))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}

fn draw_throughput(area: &Area<'_>, per_second: &[u64]) -> Result<(), Fault> {
    let Some(most) = per_second.iter().max().filter(|most| **most > 0) else {
        return Ok(());
    };
    let (right, top) = (per_second.len() as f64, *most as f64 * 1.05);
    let mut chart = chart(area, "deliveries in each second", right, top)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("seconds")
        .draw()?;
    let points = per_second.iter().enumerate();
    let points = points.map(|(second, count)| (second as f64 + 0.5, *count as f64));
    chart.draw_series(LineSeries::new(points, BLUE))?;
    Ok(())
}

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Axes from 0 to these ends, under a caption.
fn chart<'a>(area: &Area<'a>, caption: &str, right: f64, top: f64) -> Result<Chart<'a>, Fault> {
    Ok(ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, 0.0..top)?)
}
