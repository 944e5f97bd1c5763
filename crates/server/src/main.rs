//! The `tidewire` binary. What it does is in the library, where fuzz targets reach it too.

fn main() -> std::process::ExitCode {
    tidewire_server::main()
}
