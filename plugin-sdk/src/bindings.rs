//! The interfaces of `wit/`, as wit-bindgen generates them: one world for the imports, and one for each interface that
//! a plugin may export, so that a component exports only those that [`export!`](crate::export) names.

#![allow(missing_docs, unsafe_code, unreachable_pub, reason = "generated; wit/ has the documentation")]

pub(crate) mod imports {
    wit_bindgen::generate!({
        inline: "package waypost:sdk-imports;
            world imported {
                import waypost:plugin/types@0.1.0;
                import waypost:plugin/log@0.1.0;
                import waypost:plugin/config@0.1.0;
                import waypost:plugin/state@0.1.0;
            }",
        path: "wit",
        generate_all,
    });
}

pub mod metadata {
    wit_bindgen::generate!({
        inline: "package waypost:sdk-metadata;
            world exported-metadata { export waypost:plugin/metadata@0.1.0; }",
        path: "wit",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "waypost_plugin::__private::metadata",
    });
}

pub mod policy {
    wit_bindgen::generate!({
        inline: "package waypost:sdk-policy;
            world exported-policy { export waypost:plugin/policy@0.1.0; }",
        path: "wit",
        with: { "waypost:plugin/types@0.1.0": crate::bindings::imports::waypost::plugin::types },
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "waypost_plugin::__private::policy",
    });
}

pub mod filter {
    wit_bindgen::generate!({
        inline: "package waypost:sdk-filter;
            world exported-filter { export waypost:plugin/filter@0.1.0; }",
        path: "wit",
        with: { "waypost:plugin/types@0.1.0": crate::bindings::imports::waypost::plugin::types },
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "waypost_plugin::__private::filter",
    });
}

pub mod transform {
    wit_bindgen::generate!({
        inline: "package waypost:sdk-transform;
            world exported-transform { export waypost:plugin/transform@0.1.0; }",
        path: "wit",
        with: { "waypost:plugin/types@0.1.0": crate::bindings::imports::waypost::plugin::types },
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "waypost_plugin::__private::transform",
    });
}
