// A sound file.
void sound() {
  // [part]
  int a[] = {1, 2};
  // [part end]
}
