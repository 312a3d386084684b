//! The picture of both courses: failed requests and the memory of both servers over the day.
//!
//! There is no background, and every colour stands out from white and from black.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use lab::Course;
use plotters::{
    coord::Shift,
    prelude::*,
    style::{FontTransform, text_anchor},
};

const SIZE: (u32, u32) = (900, 620);

const TEXT: RGBColor = RGBColor(118, 131, 144);
const FAILED: RGBColor = RGBColor(229, 83, 75);
const WEB_01: RGBColor = RGBColor(49, 131, 246);
const WEB_02: RGBColor = RGBColor(198, 144, 38);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the courses, one above the other.
pub(crate) fn draw(file: &Path, courses: [(&str, &Course); 2]) -> Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let picture = SVGBackend::new(file, SIZE).into_drawing_area();
    let (above, below) = picture.split_vertically(SIZE.1 / 2);
    for (area, (title, course)) in [above, below].iter().zip(courses) {
        panel(area, title, course).map_err(|error| anyhow!("cannot draw {title}: {error}"))?;
    }
    picture.present().map_err(|error| anyhow!("cannot write {}: {error}", file.display()))
}

fn panel(area: &Area, title: &str, course: &Course) -> Result<(), Box<dyn std::error::Error>> {
    let text = |size: u32| ("sans-serif", size).into_font().color(&TEXT);
    let title = format!("{title}: {:.1} % of {} requests failed", 100.0 * course.failed_share(), course.sent);
    let end = course.day.as_secs_f64();
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(18))
        .margin(10)
        .margin_right(20)
        .set_label_area_size(LabelAreaPosition::Left, 55)
        .set_label_area_size(LabelAreaPosition::Bottom, 40)
        .build_cartesian_2d(0.0..end, 0.0..100.0)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(TEXT.mix(0.3))
        .axis_style(TEXT)
        .label_style(text(13))
        .x_desc("seconds of the day")
        .y_desc("%")
        .y_labels(5)
        .draw()?;

    let failed: Vec<_> = course.moments.iter().map(|m| (seconds(m.at), 100.0 * m.failed_share())).collect();
    let area = AreaSeries::new(failed, 0.0, FAILED.mix(0.35)).border_style(FAILED.stroke_width(2));
    chart
        .draw_series(area)?
        .label("requests that failed")
        .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], FAILED.mix(0.6).filled()));
    for (server, (name, colour)) in [("memory of web-01", WEB_01), ("memory of web-02", WEB_02)].into_iter().enumerate()
    {
        let used = course.moments.iter().filter_map(|m| Some((seconds(m.at), 100.0 * m.memory.get(server)?)));
        chart
            .draw_series(LineSeries::new(used, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    for (at, words) in marks(course) {
        let x = seconds(at);
        chart.draw_series(DashedLineSeries::new([(x, 0.0), (x, 100.0)], 4, 4, TEXT.stroke_width(1)))?;
        let upright = text(12)
            .transform(FontTransform::Rotate270)
            .pos(text_anchor::Pos::new(text_anchor::HPos::Right, text_anchor::VPos::Bottom));
        chart.draw_series([Text::new(words, (x, 98.0), upright)])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(text(13))
        .border_style(TRANSPARENT)
        .draw()?;
    Ok(())
}

/// What happened when, where it explains the lines.
fn marks(course: &Course) -> Vec<(Duration, String)> {
    let mut marks = Vec::new();
    marks.extend(course.detached.map(|at| (at, "web-02 detached".to_owned())));
    match (course.time_up, course.alarm) {
        (Some(up), Some(alarm)) if alarm.abs_diff(up) < course.day / 40 => {
            marks.push((alarm, "its time is up: alarm".to_owned()));
        }
        (up, alarm) => {
            marks.extend(up.map(|at| (at, "its time is up".to_owned())));
            marks.extend(alarm.map(|at| (at, "alarm".to_owned())));
        }
    }
    marks
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
