//! The tables of the models: `year,value` below one header line, with numbers as Python prints them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::coupling::Years;

/// The longest line of a table.
const LINE_BYTES_MAX: usize = 4096;

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is wrong.
    #[error("{} line {line} {fault}", path.display())]
    Line {
        /// The table's path.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The year to change is missing.
    #[error("{} has no row of the year {year}", path.display())]
    NoYear {
        /// Which.
        path: PathBuf,
        /// The year.
        year: i32,
    },
    /// The number has no square root.
    #[error("math domain error: {} has {value} in the year {year}, which has no square root", path.display())]
    NoRoot {
        /// Which.
        path: PathBuf,
        /// The year.
        year: i32,
        /// The number.
        value: String,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is too long.
    #[error("is longer than {LINE_BYTES_MAX} bytes")]
    Long,
    /// It is not UTF-8 text.
    #[error("is no UTF-8 text")]
    NoText,
    /// It has no year.
    #[error("begins with {0:?}, which is no year")]
    NoYear(String),
    /// It has no second column.
    #[error("has no value after the year")]
    NoValue,
    /// Its value is not a number.
    #[error("has the value {0:?}, which is no number")]
    NoNumber(String),
}

/// The rows of some years, in the order of the file.
#[derive(Debug, PartialEq)]
pub(crate) struct Table(Vec<(i32, f64)>);

impl Table {
    /// Reads the rows of these years. If a year occurs twice, the last row counts; empty lines are ignored.
    pub(crate) fn read(path: &Path, years: Years) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let (mut rows, mut bytes) = (Vec::<(i32, f64)>::new(), Vec::new());
        for line in 1.. {
            bytes.clear();
            let limit = LINE_BYTES_MAX as u64 + 1;
            if file.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
                break;
            }
            let wrong = |fault| Error::Line { path: path.to_owned(), line, fault };
            if bytes.len() > LINE_BYTES_MAX {
                return Err(wrong(Fault::Long));
            }
            if line == 1 || bytes.trim_ascii().is_empty() {
                continue;
            }
            let (year, value) = row(&bytes, years).map_err(wrong)?;
            match (rows.iter_mut().find(|(known, _)| *known == year), value) {
                (_, None) => {}
                (Some(known), Some(value)) => known.1 = value,
                (None, Some(value)) => rows.push((year, value)),
            }
        }
        Ok(Self(rows))
    }

    /// Replaces a year's value with its square root.
    pub(crate) fn take_root(&mut self, year: i32, path: &Path) -> Result<(), Error> {
        let row = self.0.iter_mut().find(|(known, _)| *known == year);
        let (_, value) = row.ok_or_else(|| Error::NoYear { path: path.to_owned(), year })?;
        if *value < 0.0 {
            return Err(Error::NoRoot { path: path.to_owned(), year, value: python(*value) });
        }
        *value = value.sqrt();
        Ok(())
    }

    /// Writes all rows.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let rows: String =
            self.0.iter().map(|(year, value)| format!("{year},{}\n", python(*value))).collect();
        fs::write(path, format!("year,value\n{rows}"))
            .map_err(|source| Error::Write { path: path.to_owned(), source })
    }
}

/// Reads a row. Its value is read only if its year is wanted.
fn row(bytes: &[u8], years: Years) -> Result<(i32, Option<f64>), Fault> {
    let text = str::from_utf8(bytes).map_err(|_| Fault::NoText)?;
    let mut columns = text.split(',').map(str::trim);
    let year = columns.next().unwrap_or_default();
    let year = year.parse().map_err(|_| Fault::NoYear(year.to_owned()))?;
    if !years.has(year) {
        return Ok((year, None));
    }
    let value = columns.next().ok_or(Fault::NoValue)?;
    value.parse().map(|value| (year, Some(value))).map_err(|_| Fault::NoNumber(value.to_owned()))
}

/// Returns a number as Python's `repr` writes it: the shortest form that reads back as this number.
fn python(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..16 => {
            let plain = value.to_string();
            if plain.contains('.') { plain } else { plain + ".0" }
        }
        exponent => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (value, expected) in [
            (1.0, "1.0"),
            (0.5_f64.sqrt(), "0.7071067811865476"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (-2.5, "-2.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5e-7, "-1.5e-07"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(python(value), expected);
        }
    }
}
