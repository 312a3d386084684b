//! The picture of both courses: failed requests and the memory of both servers over the day.
//!
//! There is no background, and every colour stands out from white and from black.

use std::{error::Error, fs, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use lab::Course;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

const SIZE: (u32, u32) = (900, 640);
const LEGEND: u32 = 40;
/// Of the vertical axis, in percent; what happens is written above 100.
const TOP: f64 = 112.0;

const TEXT: RGBColor = RGBColor(118, 131, 144);
const FAILED: RGBColor = RGBColor(229, 83, 75);
const WEB_01: RGBColor = RGBColor(49, 131, 246);
const WEB_02: RGBColor = RGBColor(198, 144, 38);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// Writes the courses, one above the other.
pub(crate) fn draw(file: &Path, courses: [(&str, &Course); 2]) -> Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    parts(file, courses).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
}

fn parts(file: &Path, courses: [(&str, &Course); 2]) -> Drawn {
    let picture = SVGBackend::new(file, SIZE).into_drawing_area();
    let (head, panels) = picture.split_vertically(LEGEND);
    legend(&head)?;
    let (above, below) = panels.split_vertically((SIZE.1 - LEGEND) / 2);
    for (area, (title, course)) in [above, below].iter().zip(courses) {
        panel(area, title, course)?;
    }
    picture.present()?;
    Ok(())
}

fn legend(area: &Area) -> Drawn {
    let colours = [(FAILED, "requests that failed"), (WEB_01, "memory of web-01"), (WEB_02, "memory of web-02")];
    for (x, (colour, words)) in (220..).step_by(180).zip(colours) {
        area.draw(&Rectangle::new([(x, 18), (x + 18, 26)], colour.filled()))?;
        area.draw(&Text::new(words, (x + 24, 22), text(15).pos(Pos::new(HPos::Left, VPos::Center))))?;
    }
    Ok(())
}

fn panel(area: &Area, title: &str, course: &Course) -> Drawn {
    let title = format!("{title}: {:.1} % of {} requests failed", 100.0 * course.failed_share(), course.sent);
    let end = course.day.as_secs_f64();
    let mut chart = ChartBuilder::on(area)
        .caption(title, text(21))
        .margin(10)
        .margin_right(20)
        .set_label_area_size(LabelAreaPosition::Left, 55)
        .set_label_area_size(LabelAreaPosition::Bottom, 28)
        .build_cartesian_2d(0.0..end, 0.0..TOP)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(TEXT.mix(0.3))
        .axis_style(TEXT)
        .label_style(text(15))
        .x_label_formatter(&|at| format!("{at} s"))
        .y_label_formatter(&|share| format!("{share} %"))
        .y_labels(5)
        .draw()?;

    let failed: Vec<_> = failed_shares(course).map(|(at, share)| (at.as_secs_f64(), 100.0 * share)).collect();
    chart.draw_series(AreaSeries::new(failed, 0.0, FAILED.mix(0.35)).border_style(FAILED.stroke_width(2)))?;
    for (server, colour) in [WEB_01, WEB_02].into_iter().enumerate() {
        let used = course.moments.iter().filter_map(|m| Some((m.at.as_secs_f64(), 100.0 * m.memory.get(server)?)));
        chart.draw_series(LineSeries::new(used, colour.stroke_width(2)))?;
    }
    for (at, words) in marks(course) {
        let x = at.as_secs_f64();
        chart.draw_series(DashedLineSeries::new([(x, 0.0), (x, TOP)], 4, 4, TEXT.stroke_width(1)))?;
        chart.draw_series([Text::new(words, (x + end / 150.0, TOP - 1.0), text(14))])?;
    }
    Ok(())
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT)
}

/// Of the requests of a twentieth of the day, around each moment: a hundredth has too few of them for a share.
fn failed_shares(course: &Course) -> impl Iterator<Item = (Duration, f64)> {
    let moments = &course.moments;
    moments.iter().enumerate().map(|(n, moment)| {
        let around = &moments[n.saturating_sub(2)..moments.len().min(n + 3)];
        let [sent, failed] = around.iter().fold([0, 0], |[sent, failed], m| [sent + m.sent, failed + m.failed]);
        (moment.at, if sent == 0 { 0.0 } else { failed as f64 / sent as f64 })
    })
}

/// What happened when, where it explains the lines.
fn marks(course: &Course) -> Vec<(Duration, String)> {
    let mut marks = Vec::new();
    marks.extend(course.detached.map(|at| (at, "web-02 detached".to_owned())));
    match (course.time_up, course.alarm, course.alarm_seconds()) {
        (Some(up), Some(_), Some(after)) if after >= 0.0 => {
            marks.push((up, format!("its time is up; alarm after {after:.1} s")));
        }
        (up, alarm, _) => {
            marks.extend(alarm.map(|at| (at, "alarm".to_owned())));
            marks.extend(up.map(|at| (at, "its time is up, and nobody knows".to_owned())).filter(|_| alarm.is_none()));
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use lab::Moment;

    use super::*;

    #[test]
    fn a_share_is_of_the_requests_around_and_none_of_none_is_none() {
        let moment = |sent, failed| Moment { sent, failed, ..Moment::default() };
        let moments = vec![moment(0, 0), moment(0, 0), moment(0, 0), moment(6, 3), moment(4, 2)];
        let course = Course { moments, ..Course::default() };
        let shares: Vec<_> = failed_shares(&course).map(|(_, share)| share).collect();
        assert_eq!(shares, [0.0, 0.5, 0.5, 0.5, 0.5]);
    }

    #[test]
    fn an_alarm_that_never_came_is_told_where_it_should_have_been() {
        let second = Duration::from_secs(1);
        let course = Course { detached: Some(second), time_up: Some(second * 2), ..Course::default() };
        assert_eq!(marks(&course)[1].1, "its time is up, and nobody knows");
        let course = Course { alarm: Some(second * 3), ..course };
        assert_eq!(marks(&course)[1], (second * 2, "its time is up; alarm after 1.0 s".to_owned()));
    }
}
