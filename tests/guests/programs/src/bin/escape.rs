//! Tries to read and to change files outside its folders, through WASI and through Rust's library. It prints what
//! succeeded, and any secret that it read.

use std::collections::BTreeMap;

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags};

const FOLLOW: PathFlags = PathFlags::SYMLINK_FOLLOW;
const STAY: PathFlags = PathFlags::empty();
const READ: DescriptorFlags = DescriptorFlags::READ;
const NOTHING: OpenFlags = OpenFlags::empty();

/// Paths that lead outside, relative to each of the folders.
const OUTSIDE: [&str; 8] = [
    "..",
    "../secret",
    "../../secret",
    "x/../../../secret",
    "./../../secret",
    "/secret",
    "/etc/passwd",
    "../../../../../../../../etc/passwd",
];

fn main() {
    let folders: BTreeMap<String, Descriptor> =
        get_directories().into_iter().map(|(folder, name)| (name, folder)).collect();
    println!("folders: {:?}", folders.keys().collect::<Vec<_>>());
    let (here, output, download) = (&folders["."], &folders["output"], &folders["download"]);
    look_outside(&folders);
    follow_links(here, output);
    link(here, output, download, &folders["results/deep"]);
    rename_and_remove(here, output, download);
    for (folder, name) in [(here, "event.json"), (here, "download/sub/data.txt"), (download, "sub/data.txt")]
    {
        change_file(folder, name);
    }
    change_folder("here", here);
    change_folder("download", download);
    by_the_library();
}

fn tell<T>(what: &str, done: Result<T, ErrorCode>) {
    if done.is_ok() {
        println!("succeeded: {what}");
    }
}

/// Opens a file to read, and prints it if it is secret.
fn read(what: &str, folder: &Descriptor, path: &str) {
    for flags in [FOLLOW, STAY] {
        let Ok(file) = folder.open_at(flags, path, NOTHING, READ) else { continue };
        let text = file.read(1000, 0).map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned());
        println!("opened: {what}: {}", text.unwrap_or_default());
    }
}

fn look_outside(folders: &BTreeMap<String, Descriptor>) {
    for (name, folder) in folders {
        for path in OUTSIDE {
            read(&format!("{path} from {name}"), folder, path);
            tell(&format!("stat {path} from {name}"), folder.stat_at(FOLLOW, path));
            let how = OpenFlags::CREATE | OpenFlags::TRUNCATE;
            tell(
                &format!("create {path} from {name}"),
                folder.open_at(FOLLOW, path, how, DescriptorFlags::WRITE),
            );
            tell(
                &format!("folder beyond {path} from {name}"),
                folder.create_directory_at(&format!("{path}/../../../new")),
            );
        }
    }
}

/// Makes links that point out of an output, and follows them.
fn follow_links(here: &Descriptor, output: &Descriptor) {
    let targets = ["..", "../..", "../../secret", "../event.json", "../download/sub/data.txt", "../download"];
    for (place, target) in targets.iter().enumerate() {
        let name = format!("link{place}");
        output.symlink_at(target, &name).unwrap();
        for path in [
            name.clone(),
            format!("{name}/secret"),
            format!("{name}/event.json"),
            format!("{name}/sub/data.txt"),
        ] {
            read(&format!("{path} by a link to {target}"), output, &path);
            let how = OpenFlags::CREATE | OpenFlags::TRUNCATE;
            for folder in [output, here] {
                let path = if std::ptr::eq(folder, here) { format!("output/{path}") } else { path.clone() };
                tell(
                    &format!("write {path} by a link to {target}"),
                    folder.open_at(FOLLOW, &path, how, DescriptorFlags::WRITE),
                );
            }
        }
        let inside = format!("{name}/new");
        tell(&format!("folder {inside}"), output.create_directory_at(&inside));
        tell(&format!("link {inside}"), output.symlink_at("x", &inside));
        tell(
            &format!("times by a link to {target}"),
            output.set_times_at(FOLLOW, &name, NewTimestamp::Now, NewTimestamp::Now),
        );
        output.unlink_file_at(&name).unwrap();
    }
    tell("an absolute link", output.symlink_at("/etc/passwd", "absolute"));
}

fn link(here: &Descriptor, output: &Descriptor, download: &Descriptor, deep: &Descriptor) {
    for (what, from, path) in [
        ("event.json", here, "event.json"),
        ("download/sub/data.txt", here, "download/sub/data.txt"),
        ("sub/data.txt", download, "sub/data.txt"),
        ("../event.json", output, "../event.json"),
    ] {
        for flags in [STAY, FOLLOW] {
            tell(&format!("hard link to {what}"), from.link_at(flags, path, output, "hard"));
        }
    }
    output.symlink_at("../event.json", "soft").unwrap();
    if output.link_at(STAY, "soft", output, "hard").is_ok() {
        tell(
            "write by a hard link to a link",
            output.open_at(FOLLOW, "hard", NOTHING, DescriptorFlags::WRITE),
        );
    }
    tell("hard link to a link, followed", output.link_at(FOLLOW, "soft", output, "followed"));
    tell("hard link to the parent", output.link_at(STAY, "soft", here, "hard"));
    tell("hard link beside an output", deep.link_at(STAY, "x", output, "../x"));
}

fn rename_and_remove(here: &Descriptor, output: &Descriptor, download: &Descriptor) {
    output.create_directory_at("folder").unwrap();
    for (what, from, path, to, new) in [
        ("output by its parent", here, "output", here, "other"),
        ("output itself", output, ".", output, "x"),
        ("output to the parent", output, ".", here, "x"),
        ("event.json into output", here, "event.json", output, "x"),
        ("a download into output", download, "sub/data.txt", output, "x"),
        ("download into output", here, "download", output, "x"),
        ("a folder to the parent", output, "folder", here, "x"),
        ("a folder over event.json", output, "folder", output, "../event.json"),
        ("a folder into download", output, "folder", download, "x"),
        ("a folder upwards", output, "folder", output, "../x"),
    ] {
        tell(&format!("rename {what}"), from.rename_at(path, to, new));
    }
    tell("remove event.json", here.unlink_file_at("event.json"));
    tell("remove event.json from output", output.unlink_file_at("../event.json"));
    tell("remove a download", download.unlink_file_at("sub/data.txt"));
    tell("remove download", here.remove_directory_at("download"));
    tell("remove output", here.remove_directory_at("output"));
    tell("remove output itself", output.remove_directory_at("."));
    tell("remove a folder upwards", output.remove_directory_at("../empty"));
}

fn change_file(folder: &Descriptor, name: &str) {
    for (what, how, flags) in [
        ("write", NOTHING, DescriptorFlags::WRITE),
        ("write and read", NOTHING, DescriptorFlags::WRITE | READ),
        ("truncate", OpenFlags::TRUNCATE, READ),
        ("create", OpenFlags::CREATE, READ),
        ("create anew", OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE),
    ] {
        tell(&format!("open {name} to {what}"), folder.open_at(FOLLOW, name, how, flags));
    }
    let file = folder.open_at(FOLLOW, name, NOTHING, READ).unwrap();
    tell(&format!("cut {name}"), file.set_size(0));
    tell(&format!("write {name}"), file.write(b"hostile", 0));
    tell(&format!("stream to {name}"), file.write_via_stream(0).map(|stream| stream.write(b"hostile")));
    tell(&format!("append to {name}"), file.append_via_stream().map(|stream| stream.write(b"hostile")));
    tell(&format!("times of {name}"), file.set_times(NewTimestamp::Now, NewTimestamp::Now));
    tell(
        &format!("times at {name}"),
        folder.set_times_at(FOLLOW, name, NewTimestamp::Now, NewTimestamp::Now),
    );
}

fn change_folder(name: &str, folder: &Descriptor) {
    let create = OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    tell(&format!("create in {name}"), folder.open_at(STAY, "new", create, DescriptorFlags::WRITE));
    tell(&format!("folder in {name}"), folder.create_directory_at("new"));
    tell(&format!("link in {name}"), folder.symlink_at("x", "new"));
    tell(&format!("times of {name}"), folder.set_times(NewTimestamp::Now, NewTimestamp::Now));
    let again =
        folder.open_at(STAY, ".", OpenFlags::DIRECTORY, DescriptorFlags::MUTATE_DIRECTORY | READ).unwrap();
    tell(
        &format!("create in {name} opened again"),
        again.open_at(STAY, "new", create, DescriptorFlags::WRITE),
    );
    if name == "here" {
        tell(
            "create in output by its parent",
            folder.open_at(STAY, "output/new", create, DescriptorFlags::WRITE),
        );
        let output =
            folder.open_at(STAY, "output", OpenFlags::DIRECTORY, DescriptorFlags::MUTATE_DIRECTORY | READ);
        tell("create in output opened by its parent", output.unwrap().create_directory_at("new"));
    }
}

/// The same through Rust's library.
fn by_the_library() {
    use std::fs;
    let tell = |what: &str, succeeded: bool| {
        if succeeded {
            println!("succeeded: {what} by the library");
        }
    };
    for path in OUTSIDE {
        tell(&format!("read {path}"), fs::read(path).is_ok());
        tell(&format!("write {path}"), fs::write(path, "hostile").is_ok());
    }
    tell("write event.json", fs::write("event.json", "hostile").is_ok());
    tell("write output/../event.json", fs::write("output/../event.json", "hostile").is_ok());
    tell("write beside output", fs::write("new", "hostile").is_ok());
    tell("write a download", fs::write("download/sub/data.txt", "hostile").is_ok());
    tell("remove downloads", fs::remove_dir_all("download").is_ok());
    tell("rename output", fs::rename("output", "other").is_ok());
    tell("copy over event.json", fs::copy("download/sub/data.txt", "event.json").is_ok());
    tell("hard link", fs::hard_link("event.json", "output/event.json").is_ok());
}
