//! Where payloads come from: files, watched directories, standard input.
