# A stand-in. The component goes by the name of this file and does not read it; for the native variant, put Pacifica's file
# of this name here (pacifica-dispatcher-proxymod, tests/test_files).
