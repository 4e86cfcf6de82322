//! Log lines, kept with the delivery that caused them and shown in the event's story.
//!
//! ```
//! # use waypost_plugin::{log, testing::Host};
//! # let host = Host::new();
//! # host.within(|| {
//! let (name, size) = ("a.txt", 7);
//! log::info!("kept {name}");
//! log::warn!("kept {name}"; size, share = size as f32 / 2.0);
//! # });
//! # assert_eq!(host.logs()[1].fields[1], ("share".to_owned(), "3.5".to_owned()));
//! ```
//!
//! The lines of one delivery may have 64 KiB together; further ones are dropped and counted.

use crate::host;

/// How severe a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Trace,
    /// For the author.
    Debug,
    /// What happened.
    Info,
    /// What may become an error.
    Warn,
    /// What went wrong.
    Error,
}

/// Writes a line; the macros of this module are shorter.
pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
    host::log(level, message, fields);
}

/// Returns whether lines of this level are kept.
pub fn enabled(level: Level) -> bool {
    host::log_enabled(level)
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $format:literal $(, $argument:expr)* $(,)?) => {
        $crate::log::write($crate::log::Level::$level, &format!($format $(, $argument)*), &[])
    };
    ($level:ident, $format:literal $(, $argument:expr)*; $($name:ident $(= $value:expr)?),+ $(,)?) => {
        $crate::log::write(
            $crate::log::Level::$level,
            &format!($format $(, $argument)*),
            &[$((stringify!($name).to_owned(), $crate::__field!($name $(= $value)?))),+],
        )
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __field {
    ($name:ident) => {
        $name.to_string()
    };
    ($name:ident = $value:expr) => {
        ($value).to_string()
    };
}

/// Defines the macro of one level.
macro_rules! level {
    ($dollar:tt $hidden:ident $name:ident $level:ident) => {
        #[doc = concat!("Writes a line of [`Level::", stringify!($level), "`]: `", stringify!($name),
                                "!(\"kept {n} files\"; n, kind = \"text\")`.")]
        #[macro_export]
        #[doc(hidden)]
        macro_rules! $hidden {
                            ($dollar($dollar line:tt)*) => { $crate::__log!($level, $dollar($dollar line)*) };
                        }
        #[doc(inline)]
        pub use $hidden as $name;
    };
}

level!($ __log_trace trace Trace);
level!($ __log_debug debug Debug);
level!($ __log_info info Info);
level!($ __log_warn warn Warn);
level!($ __log_error error Error);
