//! Bars from left to right, in panels one above the other, as SVG.
//!
//! There is no background, and every colour stands out from white and from black.

use std::{error::Error, fs, path::Path};

use anyhow::{Context, Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// Bars with a scale of their own.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// A bar and what stands beside it.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// The value with its unit.
    pub(crate) text: String,
    /// Where a line stands: what the value should be, at most.
    pub(crate) goal: Option<f64>,
}

const WIDTH: u32 = 900;
const TITLE: u32 = 40;
const BAR: u32 = 24;
const THICKNESS: i32 = 14;
const LEFT: i32 = 330;
/// Where the longest bar ends: its text stands behind it.
const RIGHT: i32 = 690;

const TEXT: RGBColor = RGBColor(118, 131, 144);
const VALUE: RGBColor = RGBColor(49, 131, 246);
const OVER: RGBColor = RGBColor(198, 144, 38);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// Writes the panels.
pub(crate) fn draw(file: &Path, panels: &[Panel]) -> Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    all(file, panels).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
}

fn all(file: &Path, panels: &[Panel]) -> Drawn {
    let height = panels.iter().map(height).sum::<u32>() + 10;
    let picture = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    let mut top = 0;
    for panel in panels {
        one(&picture, top, panel)?;
        top += height_of(panel);
    }
    picture.present()?;
    Ok(())
}

fn height(panel: &Panel) -> u32 {
    TITLE + BAR * panel.bars.len() as u32
}

fn height_of(panel: &Panel) -> i32 {
    height(panel).cast_signed()
}

fn one(picture: &Area, top: i32, panel: &Panel) -> Drawn {
    picture.draw(&Text::new(panel.title.as_str(), (10, top + 24), text(17, HPos::Left)))?;
    let longest = panel.bars.iter().flat_map(|bar| [Some(bar.value), bar.goal]).flatten().fold(0.0, f64::max);
    let x = |value: f64| LEFT + (f64::from(RIGHT - LEFT) * value / longest) as i32;
    for (bar, middle) in panel.bars.iter().zip((top + TITLE.cast_signed() + 8..).step_by(BAR as usize)) {
        let (above, below) = (middle - THICKNESS / 2, middle + THICKNESS / 2);
        let colour = if bar.goal.is_some_and(|goal| bar.value > goal) { OVER } else { VALUE };
        picture.draw(&Text::new(bar.label.as_str(), (LEFT - 8, middle), text(14, HPos::Right)))?;
        picture.draw(&Rectangle::new([(LEFT, above), (x(bar.value), below)], colour.filled()))?;
        let mut end = x(bar.value);
        if let Some(goal) = bar.goal {
            let goal = x(goal);
            picture.draw(&PathElement::new(vec![(goal, above - 3), (goal, below + 3)], TEXT.stroke_width(2)))?;
            end = end.max(goal);
        }
        picture.draw(&Text::new(bar.text.as_str(), (end + 8, middle), text(14, HPos::Left)))?;
    }
    Ok(())
}

fn text(size: u32, side: HPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&TEXT).pos(Pos::new(side, VPos::Center))
}
