//! From the traits to the exports of a component.

/// Exports a plugin as a WebAssembly component: name its type, and which of `policy`, `filter`, `transform` and
/// `metadata` to export. Nothing else is exported, even if the type implements more traits. Natively it only checks that
/// the type implements the traits.
///
/// ```
/// # use waypost_plugin::{Context, Describe, Event, Filter, Manifest, Result, Verdict, deliver};
/// # struct Everything;
/// # impl Filter for Everything {
/// #     fn evaluate(_: &Event, _: &Context) -> Result<Verdict> { deliver() }
/// # }
/// # impl Describe for Everything {
/// #     fn describe() -> Manifest { waypost_plugin::manifest!() }
/// # }
/// waypost_plugin::export!(Everything: filter, metadata);
/// ```
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($interface:ident),+ $(,)?) => {
        $($crate::__export!($interface $plugin);)+
    };
}

/// Natively: a check of the traits.
#[cfg(not(target_family = "wasm"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    (policy $plugin:ty) => {
        const _: () = $crate::__private::is_policy::<$plugin>();
    };
    (filter $plugin:ty) => {
        const _: () = $crate::__private::is_filter::<$plugin>();
    };
    (transform $plugin:ty) => {
        const _: () = $crate::__private::is_transform::<$plugin>();
    };
    (metadata $plugin:ty) => {
        const _: () = $crate::__private::is_described::<$plugin>();
    };
    ($other:ident $plugin:ty) => {
        compile_error!(concat!(
            "a plugin exports policy, filter, transform or metadata, and not ",
            stringify!($other)
        ));
    };
}

/// For a component: the exported functions, and the world that they belong to.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    (policy $plugin:ty) => { $crate::__export!(policy Deciding $plugin); };
    (filter $plugin:ty) => { $crate::__export!(filter Filtering $plugin); };
    (transform $plugin:ty) => { $crate::__export!(transform Transforming $plugin); };
    (metadata $plugin:ty) => { $crate::__export!(metadata Describing $plugin); };
    ($interface:ident $glue:ident $plugin:ty) => {
        const _: () = {
            type Exported = $crate::__private::$glue<$plugin>;
            $crate::__private::$interface::export!(Exported with_types_in $crate::__private::$interface);
        };
    };
    ($other:ident $plugin:ty) => {
        compile_error!(concat!("a plugin exports policy, filter, transform or metadata, and not ", stringify!($other)));
    };
}
