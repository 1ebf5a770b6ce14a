"""Messages of the log and of snapshots, and the classes generated from them. Only the codecs import them."""
