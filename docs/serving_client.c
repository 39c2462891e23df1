/* Asks an exported model for samples, through TensorFlow's C library alone.
 *
 *   serving_client MODEL_DIR INPUT OUTPUT SEED...
 *
 * MODEL_DIR is a version's folder; INPUT and OUTPUT are the graph's names of the signature's seed and samples_float,
 * as `saved_model_cli show --dir MODEL_DIR --tag_set serve --signature_def sample` prints them, such as
 * sample_seed:0. Prints the shape and then the values, one per line; exits with 1 and the reason on an error.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static void check(TF_Status *status, const char *what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: code %d: %s\n", what, (int)TF_GetCode(status), TF_Message(status));
  exit(1);
}

/* The operation and the index of a name such as "sample_seed:0". */
static TF_Output find(TF_Graph *graph, char *name) {
  char *colon = strrchr(name, ':');
  TF_Output output = {NULL, colon ? atoi(colon + 1) : 0};
  if (colon) *colon = '\0';
  output.oper = TF_GraphOperationByName(graph, name);
  if (output.oper == NULL) {
    fprintf(stderr, "the graph has no operation %s\n", name);
    exit(1);
  }
  return output;
}

int main(int argc, char **argv) {
  if (argc < 5) {
    fprintf(stderr, "usage: %s MODEL_DIR INPUT OUTPUT SEED...\n", argv[0]);
    return 2;
  }
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status, "loading");

  int64_t rows = argc - 4;
  TF_Tensor *seeds = TF_AllocateTensor(TF_INT64, &rows, 1, (size_t)rows * sizeof(int64_t));
  for (int64_t i = 0; i < rows; ++i) ((int64_t *)TF_TensorData(seeds))[i] = strtoll(argv[4 + i], NULL, 10);

  TF_Output input = find(graph, argv[2]), output = find(graph, argv[3]);
  TF_Tensor *samples = NULL;
  TF_SessionRun(session, NULL, &input, &seeds, 1, &output, &samples, 1, NULL, 0, NULL, status);
  check(status, "running");

  int64_t values = 1;
  for (int i = 0; i < TF_NumDims(samples); ++i) {
    printf("%" PRId64 " ", TF_Dim(samples, i));
    values *= TF_Dim(samples, i);
  }
  printf("\n");
  for (int64_t i = 0; i < values; ++i) printf("%.9g\n", ((float *)TF_TensorData(samples))[i]);

  TF_DeleteTensor(samples);
  TF_DeleteTensor(seeds);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
