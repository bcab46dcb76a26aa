//! Windows gives a program's first thread 1 MiB of stack unless the program asks for more, where
//! others give 8. With little optimisation that is not enough for all that a program waits for.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") == "windows" {
        let option = match target("ENV").as_str() {
            "msvc" => "/STACK:8388608",
            _ => "-Wl,--stack,8388608",
        };
        println!("cargo::rustc-link-arg-bins={option}");
    }
}
